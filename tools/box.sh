#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Build a Debian box for Vagrant's libvirt provider, from Debian's packages alone.
#
# The box holds all that `bench deploy` would install, so that VMs without a way to the internet can
# be used. It is kept in the user's cache and built anew when what it is made from changes: this
# script, the lists of packages, the release, or the month (packages get their security fixes).
# A box that was given to Vagrant already is left as it is.
#
# Usage: tools/box.sh [12|13]     the release of Debian; prints the box's file
#        tools/box.sh [12|13] --only-file    do not hand it to Vagrant
# Needs root, for debootstrap and a loop device. HOPBENCH_MIRROR: the archive to take packages from.
set -eu

cd "$(dirname "$0")/.."
here=$(pwd -P)
script=$here/tools/box.sh
release=12
add=yes
inside=no
for word; do
	case $word in
	12 | 13) release=$word ;;
	--only-file) add=no ;;
	--inside) inside=yes ;;
	*)
		echo "usage: tools/box.sh [12|13] [--only-file]" >&2
		exit 2
		;;
	esac
done
case $release in
12) suite=bookworm ;;
13) suite=trixie ;;
esac
name=hopbench/debian-$release
mirror=${HOPBENCH_MIRROR:-http://deb.debian.org/debian}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/hopbench
# Vagrant wants a disk no larger than this; the file has holes.
disk_gb=4

say() {
	echo "box: $1" >&2
}

fail() {
	say "$1"
	exit 1
}

packages() {
	for list in ansible/packages/common ansible/packages/client ansible/packages/hop \
		ansible/packages/server ansible/packages/sshd tools/box-packages tools/login-packages; do
		sed 's/#.*//' "$list.txt"
	done
}

digest() {
	{
		cat "$script"
		packages
		echo "$mirror $suite"
		date -u +%Y-%m
	} | sha256sum | cut -c1-12
}

check() {
	[ "$(id -u)" = 0 ] || fail "this needs root, for debootstrap and a loop device: run it with sudo"
	[ "$(dpkg --print-architecture 2>/dev/null)" = amd64 ] || fail "this needs Debian or Ubuntu on amd64"
	for tool in debootstrap extlinux qemu-img vagrant unshare sfdisk; do
		command -v "$tool" >/dev/null || fail "$tool is not installed: run make setup-vm"
	done
}

# --- in a mount and PID namespace of its own: whatever ends this, nothing stays mounted -------

in_chroot() {
	chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin \
		DEBIAN_FRONTEND=noninteractive LC_ALL=C HOME=/root "$@"
}

bootstrap() {
	say "installing Debian $release ($suite) from $mirror"
	debootstrap --variant=minbase "$suite" "$root" "$mirror" >"$work/debootstrap.log" 2>&1 ||
		fail "debootstrap failed: $(tail -n 1 "$work/debootstrap.log")"
	cat >"$root/etc/apt/sources.list" <<-END
		deb $mirror $suite main
		deb $mirror $suite-updates main
		deb ${mirror%/debian}/debian-security $suite-security main
	END
	# No service of what is installed starts here, and nobody waits for the disk.
	printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
	chmod 755 "$root/usr/sbin/policy-rc.d"
	echo force-unsafe-io >"$root/etc/dpkg/dpkg.cfg.d/box"
	mount -t proc proc "$root/proc"
	mount -t sysfs -o ro sysfs "$root/sys"
	mount --bind /dev "$root/dev"
	cp /etc/resolv.conf "$root/etc/resolv.conf"
	say "installing packages"
	in_chroot apt-get -qq update >"$work/apt.log" 2>&1 || fail "$(tail -n 1 "$work/apt.log")"
	# shellcheck disable=SC2046  # one word a package
	if ! in_chroot apt-get -qq -y upgrade >>"$work/apt.log" 2>&1 ||
		! in_chroot apt-get -qq -y --no-install-recommends install $(packages) \
			>>"$work/apt.log" 2>&1; then
		fail "apt failed: $(tail -n 1 "$work/apt.log")"
	fi
}

settle() {
	say "configuring"
	echo hopbench >"$root/etc/hostname"
	echo "127.0.0.1 localhost hopbench" >"$root/etc/hosts"
	echo "UUID=$uuid / ext4 noatime,errors=remount-ro 0 1" >"$root/etc/fstab"
	printf 'source /etc/network/interfaces.d/*\nauto lo\niface lo inet loopback\nauto eth0\niface eth0 inet dhcp\n' \
		>"$root/etc/network/interfaces"
	in_chroot useradd --create-home --shell /bin/bash vagrant
	in_chroot passwd --quiet --lock root
	echo "vagrant ALL=(ALL) NOPASSWD: ALL" >"$root/etc/sudoers.d/vagrant"
	chmod 440 "$root/etc/sudoers.d/vagrant"
	install -d -m 700 "$root/home/vagrant/.ssh"
	install -m 600 "$(dpkg -L vagrant | grep /keys/vagrant.pub$)" "$root/home/vagrant/.ssh/authorized_keys"
	in_chroot chown -R vagrant:vagrant /home/vagrant/.ssh
	# Every VM makes a host key of its own, at its first start: in software emulation RSA takes long.
	rm -f "$root"/etc/ssh/ssh_host_*
	printf 'HostKey /etc/ssh/ssh_host_ed25519_key\nUseDNS no\nPasswordAuthentication no\n' \
		>"$root/etc/ssh/sshd_config.d/box.conf"
	mkdir -p "$root/etc/systemd/system/ssh.service.d"
	printf '[Service]\nExecStartPre=\nExecStartPre=/bin/sh -c "test -e /etc/ssh/ssh_host_ed25519_key || ssh-keygen -q -t ed25519 -N \\"\\" -f /etc/ssh/ssh_host_ed25519_key"\n' \
		>"$root/etc/systemd/system/ssh.service.d/host-key.conf"
	# What a chain would not want of its hosts: work at any time.
	in_chroot systemctl -q disable nginx.service nftables.service apt-daily.timer \
		apt-daily-upgrade.timer e2scrub_all.timer fstrim.timer dpkg-db-backup.timer 2>/dev/null || true
	# What takes seconds at every start in software emulation, for nothing: waiting for all devices
	# before the network, and looking for LVM snapshots.
	in_chroot systemctl -q mask ifupdown-pre.service e2scrub_reap.service systemd-binfmt.service
	# The initial file system has to hold what leads to the disk, and nothing for other machines.
	printf '%s\n' virtio_pci virtio_blk virtio_scsi sd_mod ext4 >>"$root/etc/initramfs-tools/modules"
	echo MODULES=list >"$root/etc/initramfs-tools/conf.d/box"
	in_chroot update-initramfs -u >>"$work/apt.log" 2>&1
	in_chroot systemctl -q enable ssh.service
	in_chroot systemctl -q set-default multi-user.target
	: >"$root/etc/machine-id"
	rm -f "$root/etc/resolv.conf" "$root/usr/sbin/policy-rc.d" "$root/etc/dpkg/dpkg.cfg.d/box"
	rm -f "$root/var/lib/dbus/machine-id" "$root/etc/.pwd.lock"
	# dpkg says what is in the box; the lists come again with apt-get update.
	in_chroot dpkg-query -W >"$work/packages.txt"
	in_chroot apt-get clean
	rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*.bin "$root"/var/log/*.log \
		"$root"/var/log/apt "$root"/var/cache/debconf/*-old "$root"/var/cache/ldconfig/aux-cache \
		"$root"/usr/share/doc "$root"/usr/share/man "$root"/usr/share/locale
}

make_disk() {
	say "making the disk"
	umount "$root/dev" "$root/sys" "$root/proc"
	disk=$work/disk.img
	truncate -s "${disk_gb}G" "$disk"
	printf 'label-id: 0x686f7062\nstart=2048, type=83, bootable\n' | sfdisk -q "$disk"
	dd if=/usr/lib/EXTLINUX/mbr.bin of="$disk" bs=440 count=1 conv=notrunc status=none
	kernel=$(basename "$(ls "$root"/boot/vmlinuz-*)")
	mkdir -p "$root/boot/extlinux"
	cat >"$root/boot/extlinux/extlinux.conf" <<-END
		DEFAULT linux
		TIMEOUT 1
		LABEL linux
		  LINUX /boot/$kernel
		  INITRD /boot/initrd.img-${kernel#vmlinuz-}
		  APPEND root=UUID=$uuid ro quiet net.ifnames=0 console=tty0 console=ttyS0
	END
	mke2fs -q -t ext4 -U "$uuid" -E "offset=$((2048 * 512)),hash_seed=$uuid" -d "$root" \
		"$disk" "$(((disk_gb << 20) - 1024))k"
	mkdir "$work/mnt"
	mount -o "loop,offset=$((2048 * 512))" "$disk" "$work/mnt"
	extlinux --install "$work/mnt/boot/extlinux" >"$work/extlinux.log" 2>&1 ||
		fail "extlinux failed: $(tail -n 1 "$work/extlinux.log")"
	umount "$work/mnt"
	say "compressing"
	qemu-img convert -q -c -o compression_type=zstd -O qcow2 "$disk" "$work/box.img"
}

pack() {
	printf '{"provider": "libvirt", "format": "qcow2", "virtual_size": %d}\n' $disk_gb \
		>"$work/metadata.json"
	printf '{"description": "Debian %s with what hosts of a hopbench chain need", "kernel": "%s"}\n' \
		"$release" "${kernel#vmlinuz-}" >"$work/info.json"
	printf 'Vagrant.configure("2") { |config| config.vm.synced_folder ".", "/vagrant", disabled: true }\n' \
		>"$work/Vagrantfile"
	tar -C "$work" --sort=name --mtime="@0" --owner=0 --group=0 --numeric-owner \
		-cf "$work/box.tar" metadata.json info.json Vagrantfile packages.txt box.img
}

if [ "$inside" = yes ]; then
	work=$HOPBENCH_BOX_WORK
	root=$work/root
	# Always the same, and nobody else's: the kernel finds its root by it.
	uuid=686f7062-656e-4368-8000-0000000000$release
	mkdir "$root"
	bootstrap
	settle
	make_disk
	pack
	exit
fi

# --- the caller --------------------------------------------------------------------------------

check
box=$cache/debian-$release-$(digest).box
if [ ! -e "$box" ]; then
	mkdir -p "$cache"
	work=$(mktemp -d "$cache/build.XXXXXX")
	trap 'rm -rf "$work"' EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP
	HOPBENCH_BOX_WORK=$work unshare --mount --pid --fork --kill-child --propagation private \
		sh "$script" "$release" --inside
	rm -f "$cache/debian-$release"-*.box
	mv "$work/box.tar" "$box"
	rm -rf "$work"
	say "made $(du -h "$box" | cut -f1) in $box"
fi
if [ $add = yes ]; then
	stamp=$cache/added-$release-$(printf '%s' "${VAGRANT_HOME:-$HOME/.vagrant.d}" | sha256sum | cut -c1-12)
	if [ "$(cat "$stamp" 2>/dev/null)" != "$box" ] ||
		! vagrant box list 2>/dev/null | grep -q "^$name "; then
		vagrant box add --force --name "$name" "$box" >&2
		echo "$box" >"$stamp"
	fi
fi
echo "$box"
