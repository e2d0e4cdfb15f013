#!/bin/bash
# First process of a guest. The root is the machine's own file system, read-only; /mnt is the guest's folder, shared with the
# harness and writable: settings and configuration files come from there, logs and answers go there. All else is tmpfs.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev 2> /dev/null
mkdir -p /dev/pts && mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /run
mkdir -p /run/lock /run/xl2tpd /run/modules/lib /run/etc/{upper,work}
read -r cmdline < /proc/cmdline
folder=${cmdline##*guestfolder=}
mount -t hostfs none -o "${folder%% *}" /mnt
exec > /mnt/boot.txt 2>&1

# The kernel's modules are not where modprobe looks for them: tell both modprobe and the kernel's own loader.
ln -s /usr/lib/uml/modules /run/modules/lib/modules
printf '#!/bin/sh\nexec /sbin/modprobe -d /run/modules "$@"\n' > /run/modprobe
chmod +x /run/modprobe
echo /run/modprobe > /proc/sys/kernel/modprobe
/run/modprobe overlay
mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/etc/upper,workdir=/run/etc/work /etc || { echo "no overlay on /etc"; exit 1; }
for place in /tmp /var/log /var/lib /root; do mount -t tmpfs tmpfs $place; done
[ -e /dev/ppp ] || mknod /dev/ppp c 108 0

. /mnt/settings
hostname gateway
ip link set lo up
ip address add "$ADDRESS/24" dev vec0
ip link set vec0 up
ip route add default via "$ROUTER"
if [ -n "$ADDRESS6" ]; then
  /run/modprobe -a ipv6 esp6
  ip address add "$ADDRESS6/64" dev vec0 nodad
fi
sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.send_redirects=0
: > /etc/resolv.conf

# The host behind the gateway: a web server, and an address that answers pings.
if [ -n "$INNER" ]; then
  ip link add inner type dummy
  ip address add "$INNER/24" dev inner
  ip link set inner up
  mkdir -p /run/www
  echo "$PAGE" > /run/www/index.html
  busybox httpd -p "$INNER:80" -h /run/www
fi

cp -r /mnt/etc/. /etc/
chmod 600 /etc/ppp/*-secrets
for script in /etc/ppp/ip-up /etc/ppp/ip-down; do [ -e $script ] && chmod +x $script; done
# Loaded now: a client's first packet may come before charon has made the kernel load them.
/run/modprobe -a esp4 authenc echainiv seqiv cbc gcm des_generic sha512_generic xfrm_user l2tp_ppp ppp_async ppp_mppe ppp_deflate bsd_comp sch_netem
start_daemons() {
  /usr/lib/ipsec/charon &
  charon=$!
  for _ in $(seq 300); do [ -S /run/charon.vici ] && break; sleep 0.1; done
  swanctl --load-all || return 1
  # L2TP goes through an SA or not at all: charon's own policies come before these.
  for any in 0.0.0.0/0 ${ADDRESS6:+::/0}; do
    ip xfrm policy add src $any dst $any proto udp dport 1701 dir in action block priority 900000
    ip xfrm policy add src $any dst $any proto udp dport 1701 dir out action block priority 900000
    ip xfrm policy add src $any dst $any proto udp sport 1701 dir out action block priority 900000
  done
  # xl2tpd speaks no IPv6: what it sends to this port of the loopback goes on over IPv6, and the answers come back. For a gateway
  # it is the other way round.
  if [ -n "$SERVER6" ]; then
    socat UDP4-LISTEN:1702,bind=127.0.0.2 "UDP6:[$SERVER6]:1701,bind=[$ADDRESS6]:1701" &
  elif [ -n "$ADDRESS6" ]; then
    socat "UDP6-LISTEN:1701,bind=[$ADDRESS6]" UDP4:127.0.0.1:1701,bind=127.0.0.2:1702 &
  fi
  xl2tpd -D -c /etc/xl2tpd/xl2tpd.conf -p /run/xl2tpd.pid > /mnt/l2tp.log 2>&1 &
  for _ in $(seq 100); do grep -q 'Listening on IP' /mnt/l2tp.log && return 0; sleep 0.1; done
  return 1
}
start_daemons
echo $? > /mnt/ready.part
mv /mnt/ready.part /mnt/ready

# Commands of the harness: NAME.sh is run, its output is NAME.out, its exit status NAME.rc.
mkfifo /run/tick
exec 9<> /run/tick
while [ ! -e /mnt/stop ]; do
  for script in /mnt/commands/*.sh; do
    [ -e "$script" ] || continue
    name=${script%.sh}
    mv "$script" "$name.run"
    (bash "$name.run" > "$name.out" 2>&1 < /dev/null; echo $? > "$name.part"; mv "$name.part" "$name.rc") 9>&- &
  done
  read -r -t 0.1 -u 9
done
halt -f
