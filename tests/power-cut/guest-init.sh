#!/bin/sh
# The first process of the machine whose power is cut: mounts the disk, then does what the host says on the console.
#
#   start LEVEL [lying-sync]   a daemon with storage.ack=LEVEL; with lying-sync its syncs do nothing
#   kill                       kill -9 of the daemon
#
# Says GUEST and what it has done. Must never sync or unmount: that the power is cut is the point.
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
stty -echo
while read -r module; do
    insmod "/modules/$module" || echo "GUEST failed insmod $module"
done </modules/order
ip link set lo up
ip addr add 10.0.2.15/24 dev eth0
ip link set eth0 up
# The disk may need a moment to appear.
tries=0
until mount -t ext4 /dev/vda /data; do
    tries=$((tries + 1))
    [ $tries -lt 50 ] || { echo "GUEST failed mount"; poweroff -f; }
    sleep 0.1
done

start() {
    preload=
    [ "$2" = lying-sync ] && preload=/lib/libeatmydata.so
    LD_PRELOAD=$preload tilecatcher serve --data /data/tiles --capture 0.0.0.0:5002 --http 0.0.0.0:5001 --set access.networks=10.0.2.0/24 \
        --set "storage.ack=$1" --set storage.segment_size=32MiB --set storage.control_segment_size=1MiB \
        --set storage.reserve=16MiB --set memory.buffers=64MiB --set capture.frame_max=8MiB --set index.cache=16MiB \
        --set log.level=warn </dev/null &
    daemon=$!
}

echo "GUEST booted"
while read -r command arguments; do
    case $command in
    start)
        # shellcheck disable=SC2086 # several words
        start $arguments
        ;;
    kill)
        kill -9 "$daemon"
        wait "$daemon"
        echo "GUEST killed"
        ;;
    esac
done
