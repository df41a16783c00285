#!/usr/bin/env bash
# Install from Debian what real nodes need and this machine lacks. Without root: nothing to do, nodes will be simulated.
set -euo pipefail
[ "$(id -u)" = 0 ] || exit 0
missing=()
need() { command -v "$1" > /dev/null 2>&1 || missing+=("$2"); }
need containerd containerd
need runc runc
need nft nftables
need ip iproute2
need conntrack conntrack
need curl curl
# The tests and benchmarks of the etcd API speak to korch with etcd's own tools, and to etcd itself for comparison.
need etcd etcd-server
need etcdctl etcd-client
[ -x /usr/lib/cni/bridge ] || missing+=(containernetworking-plugins)
[ -x /bin/busybox ] && ! ldd /bin/busybox > /dev/null 2>&1 || missing+=(busybox-static)
command -v cc > /dev/null 2>&1 || missing+=(gcc libc6-dev)
[ ${#missing[@]} = 0 ] && exit 0
echo "Installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
# The distribution starts a containerd of its own after installation; korch never uses it, so it is kept from starting.
if [ ! -e /usr/sbin/policy-rc.d ]; then
  printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
  chmod +x /usr/sbin/policy-rc.d
  trap 'rm -f /usr/sbin/policy-rc.d' EXIT
fi
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}" > /dev/null
# Nobody asked for an etcd that starts with the machine.
case " ${missing[*]} " in *" etcd-server "*) systemctl disable -q etcd 2> /dev/null || true ;; esac
