# shellcheck shell=bash
# What virtual machines need of the machine, beside what the cluster needs; the cluster's doctor looks for it.

NEEDS+=(debootstrap:debootstrap mkfs.ext4:e2fsprogs dpkg-deb:dpkg chroot:coreutils ssh:openssh-client ssh-keygen:openssh-client)
