#!/usr/bin/env bash
# This script attacks keyhatchd in a virtual machine with Debian 12 and Linux 6.1. Many users
# run kernels of this age. Such a kernel cannot refuse passed file descriptors
# (SO_PASSRIGHTS), and provides no secret memory (memfd_secret).
#
# usage: vm.sh KEYHATCHD ATTACK
#
# KEYHATCHD and ATTACK are the paths of the programs keyhatchd and attack. The script needs
# root and the Debian packages qemu-system-x86 and debootstrap. The script builds the base
# system of the virtual machine once, which takes about 1.5 minutes, and stores it in the
# directory KEYHATCH_VM_CACHE. qemu emulates the processor, so programs run about 10 to 30
# times slower. Because of that, the attacks make fewer attempts, and do not check times and
# processor time. The virtual machine has no network.
set -euo pipefail

keyhatchd=$1 attack=$2
cache=${KEYHATCH_VM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/keyhatch-ci/vm}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if [ ! -f "$cache/base.img" ]; then
	echo "building the base system of the virtual machine"
	mkdir -p "$cache"
	rm -rf "$cache/root"
	debootstrap --variant=minbase --include=systemd,systemd-sysv,udev,linux-image-cloud-amd64,initramfs-tools,iproute2,procps,util-linux \
		bookworm "$cache/root" >"$work/debootstrap.log" || { tail -n 20 "$work/debootstrap.log" >&2; exit 1; }
	cat >"$cache/root/etc/systemd/system/attack.service" <<'UNIT'
[Unit]
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'exec >/dev/ttyS0 2>&1; mkdir -p /attack; mount -t ext4 /dev/vdb /attack; stty -F /dev/ttyS0 -opost; echo RUN-BEGIN; cd /attack; sh ./run; echo RUN-END $?; sync; poweroff -f'
[Install]
WantedBy=multi-user.target
UNIT
	ln -s ../attack.service "$cache/root/etc/systemd/system/multi-user.target.wants/attack.service"
	ln -s /dev/null "$cache/root/etc/systemd/system/serial-getty@ttyS0.service" # the test writes its output to this console
	cp "$cache"/root/boot/vmlinuz-* "$cache/vmlinuz"
	cp "$cache"/root/boot/initrd.img-* "$cache/initrd"
	mke2fs -q -t ext4 -d "$cache/root" "$cache/base.tmp" 2G >/dev/null
	mv "$cache/base.tmp" "$cache/base.img"
	rm -rf "$cache/root"
fi

mkdir "$work/files"
cp "$keyhatchd" "$work/files/keyhatchd"
cp "$attack" "$work/files/attack"
cat >"$work/files/run" <<'RUN'
uname -r
ip link set lo up
./attack -keyhatchd ./keyhatchd -small -flood 5s
RUN
size=$(($(du -sm "$work/files" | cut -f1) * 2 + 64))
mke2fs -q -t ext4 -d "$work/files" "$work/files.img" "${size}M" >/dev/null
timeout 600 qemu-system-x86_64 -accel tcg,thread=multi -cpu max -m 1536 -smp 2 -display none -serial file:"$work/out" \
	-no-reboot -snapshot -net none -kernel "$cache/vmlinuz" -initrd "$cache/initrd" \
	-append "root=/dev/vda rw console=ttyS0 quiet systemd.show_status=0" \
	-drive file="$cache/base.img",if=virtio,format=raw -drive file="$work/files.img",if=virtio,format=raw \
	>/dev/null 2>"$work/err" || true
sed -n '/RUN-BEGIN/,/RUN-END/p' "$work/out" | sed '/RUN-BEGIN/d; /RUN-END/d'
status=$(grep -a -o 'RUN-END [0-9]*' "$work/out" | cut -d' ' -f2) || true
if [ -z "$status" ]; then
	echo "the virtual machine ended, or was stopped after 10 minutes, before the attacks had ended" >&2
	tail -n 20 "$work/out" "$work/err" >&2
	exit 1
fi
exit "$status"
