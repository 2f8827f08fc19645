#!/bin/sh
# The first process of a host's namespaces: it mounts the root, starts sshd, and becomes one that only reaps what ends.
# When it is killed, the kernel ends everything else in there.
#
# usage: boot.sh DIRECTORY TREE, by way of `hosts`
set -eu
directory=$1 root=$1/root

# This /proc is still that of the caller, who wants to know the pid as it is there.
read -r stat </proc/self/stat
# shellcheck disable=SC2086  # to be split
set -- "$2" $stat
echo "$2 ${23}" >"$directory/process"

basename "$directory" >/proc/sys/kernel/hostname
cat /proc/sys/kernel/random/uuid >"$directory/boot-id"
mount -t overlay -o "lowerdir=$1,upperdir=$directory/disk/upper,workdir=$directory/disk/work" overlay "$root"
# What the machine has only one of is not for the hosts to change.
cat >"$directory/fstab" <<EOT
proc /proc proc nosuid,nodev,noexec
/proc/sys /proc/sys none bind,ro
$directory/boot-id /proc/sys/kernel/random/boot_id none bind
sysfs /sys sysfs ro,nosuid,nodev,noexec
devpts /dev/pts devpts nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5
shm /dev/shm tmpfs nosuid,nodev,size=16m
tmpfs /run tmpfs nosuid,nodev,mode=755,size=16m
$directory/sshd.log /var/log/sshd.log none bind
EOT
# Not every kernel has it.
if [ -e /proc/sysrq-trigger ]; then echo "/dev/null /proc/sysrq-trigger none bind" >>"$directory/fstab"; fi
sed -i "s|^/proc/sys |$root&|" "$directory/fstab"
mount --all --fstab "$directory/fstab" --target-prefix "$root"

cd "$root"
pivot_root . .
umount -l .
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mkdir /run/sshd /run/lock
chmod 1777 /run/lock
exec chroot . env -i "PATH=$PATH" HOME=/root setpriv --bounding-set=-sys_module,-sys_time,-sys_rawio,-sys_boot \
  sh -c '/usr/sbin/sshd -E /var/log/sshd.log && exec tini -- sleep infinity'
