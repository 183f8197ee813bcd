#!/bin/sh
# `uvx` for MCP servers whose instructions name it, over pipx: uvx [--from SPEC] [--python X] PACKAGE[@VERSION] [ARG...]
set -eu
spec=
python=
while [ $# -gt 0 ]; do
  case $1 in
    --from) spec=${2:?uvx: --from needs a package}; shift 2 ;;
    --from=*) spec=${1#*=}; shift ;;
    -p | --python) python=${2:?uvx: --python needs an interpreter}; shift 2 ;;
    --python=*) python=${1#*=}; shift ;;
    -q | --quiet) shift ;;
    --) shift; break ;;
    -*) echo "uvx: $1 is not supported here; this is a small front of \`pipx run\`" >&2; exit 64 ;;
    *) break ;;
  esac
done
if [ $# -eq 0 ]; then
  echo "usage: uvx [--from SPEC] [--python X] PACKAGE[@VERSION] [ARG...]" >&2
  exit 64
fi
app=$1
shift
case $app in
  *@latest) app=${app%@latest}; : "${spec:=$app}" ;;
  *@*) : "${spec:=${app%@*}==${app##*@}}"; app=${app%@*} ;;
esac
set -- "$app" "$@"
if [ -n "$spec" ]; then set -- --spec "$spec" "$@"; fi
if [ -n "$python" ]; then set -- --python "$python" "$@"; fi
exec pipx run "$@"
