#!/bin/sh
# Lays out the root file system of a Dunlin image: a built program, the libraries that it was linked
# with, and the few files that the C library looks for. Nothing else: no shell, no package manager.
#
#   docker/stage.sh [PROGRAM [FOLDER]]        default: target/release/dunlin target/image
#
# The Dockerfile calls it after it has built the program from source; `DUNLIN_BUILD=prebuilt` takes
# what it has laid out from this machine.
set -eu
cd "$(dirname "$0")/.."
program="${1:-target/release/dunlin}"
folder="${2:-target/image}"

fail() {
    echo "error: $*" >&2
    exit 1
}
[ -x "$program" ] || fail "there is no program $program: run \`cargo build --release\` first"
linked="$(ldd "$program" 2>&1)" || case "$linked" in
*"not a dynamic executable"* | *"statically linked"*) linked="" ;;
*) fail "ldd $program: $linked" ;;
esac
case "$linked" in *"not found"*) fail "a library is missing: $linked" ;; esac

rm -rf "$folder"
mkdir -p "$folder/usr/local/bin" "$folder/etc"
cp "$program" "$folder/usr/local/bin/dunlin"

# `ldd` prints "name => path (address)" for a library and "path (address)" for the loader. Each keeps
# the path under which it will be looked for.
for path in $(printf '%s\n' "$linked" | sed -n -e 's/.*=> \(\/[^ ]*\) (.*/\1/p' -e 's/^[[:space:]]*\(\/[^ ]*\) (.*/\1/p'); do
    mkdir -p "$folder$(dirname "$path")"
    cp -L "$path" "$folder$path"
    case "$path" in
    */libc.so.*)
        # Before version 2.34 the C library loads what resolves names when it first needs it.
        for name in libnss_files.so.2 libnss_dns.so.2 libresolv.so.2; do
            beside="$(dirname "$path")/$name"
            if [ -e "$beside" ]; then cp -L "$beside" "$folder$beside"; fi
        done
        ;;
    esac
done

echo 'hosts: files dns' >"$folder/etc/nsswitch.conf"
printf 'root:x:0:0:root:/:/sbin/nologin\ndunlin:x:10001:10001:dunlin:/var/lib/dunlin:/sbin/nologin\n' >"$folder/etc/passwd"
printf 'root:x:0:\ndunlin:x:10001:\n' >"$folder/etc/group"
