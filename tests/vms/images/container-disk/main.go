// Stand-in for KubeVirt's program of this name, which a pod runs once in the image of each containerDisk so that the
// image is there before the guest starts. That is all it is for, so it ends at once.
package main

func main() {}
