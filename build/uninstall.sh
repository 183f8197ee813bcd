#!/bin/sh
# Removes everything memoh made on this machine but Debian packages: data of all bots, run files, bridge, firewall chains.
# usage: build/uninstall.sh --yes [INSTANCE]      (after `npm stop -- --all`)
set -eu
name=${2:-memoh}
case $name in *[!a-z0-9-]* | '') echo "Cannot uninstall '$name': no such instance name" >&2; exit 64 ;; esac
if [ "${1:-}" != --yes ]; then
  echo "This deletes every bot of '$name' with its data: build/uninstall.sh --yes $name" >&2
  exit 64
fi
if pgrep -f "/(var/lib|run)/$name/" >/dev/null; then
  echo "Something of '$name' is still running: npm stop -- --all" >&2
  exit 1
fi
grep -o " /run/$name/[^ ]*" /proc/mounts | sort -r | while read -r place; do umount -l "$place"; done
rm -rf "/run/$name" "/var/lib/$name" "/etc/$name"
for cgroup in "/sys/fs/cgroup/$name" /sys/fs/cgroup/*/"$name"; do
  if [ -d "$cgroup" ]; then find "$cgroup" -depth -type d -exec rmdir {} +; fi
done
ip link delete "${name}0" 2>/dev/null || true
for command in iptables ip6tables; do
  for table in filter nat; do
    "$command" -t "$table" -S 2>/dev/null | grep -- "-j MEMOH-.-$name\$" | sed 's/^-A/-D/' |
      while read -r rule; do
        # shellcheck disable=SC2086 # a rule is many words
        "$command" -t "$table" $rule
      done
    chains=$("$command" -t "$table" -S 2>/dev/null | sed -n "s/^-N \(MEMOH-.-$name\)\$/\1/p")
    for chain in $chains; do "$command" -t "$table" -F "$chain"; done
    for chain in $chains; do "$command" -t "$table" -X "$chain"; done
  done
done
echo "Removed '$name'"
