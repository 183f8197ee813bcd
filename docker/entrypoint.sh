#!/bin/sh
# Runs the agent when the image is started by hand. Under memoh the host starts the same files itself.
set -eu
here=/opt/memoh
loader=
for file in "$here"/ld-linux*; do loader=$file; done
exec "$here/tini" -g -- "$loader" --library-path "$here/lib" "$here/memoh" agent "$@"
