#!/usr/bin/env bash
# check.sh - builds the Dockerfile and uses its image as a cluster would: read-only, without network, as a user
# that the image does not know. `make check-container`; not part of make check.
#
# Needs docker, or buildah and podman (then as root; bases are made with mmdebstrap, since a registry may be out of
# reach: SUITE, MIRROR, and KEYRING for another distribution's). CUDA=1 builds the kernels too, with the toolkit of
# this machine bound into the build stage where the base has none.
set -euo pipefail
cd "$(dirname "$0")/../.."
suite=${SUITE:-bookworm} cuda=${CUDA:-0} image=localhost/equipoise:check
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

say() { printf '%s\n' "container: $*"; }
check() { # what, command...
    if "${@:2}" >"$work/out" 2>&1; then say "ok: $1"; else
        say "FAILED: $1"
        sed 's/^/    /' "$work/out"
        failed=$((failed + 1))
    fi
}

build_args=(--build-arg "VERSION=check" --build-arg "REVISION=$(git rev-parse --short HEAD)")
if [ "$cuda" = 1 ]; then build_args+=(--build-arg EQ_CUDA=ON); else build_args+=(--build-arg EQ_CUDA=OFF); fi
if command -v docker >/dev/null && docker info >/dev/null 2>&1; then
    docker build -q "${build_args[@]}" -t "$image" .
    run() { docker run --rm --network=none --read-only --user 1234:1234 "$@"; }
    inspect() { docker inspect --format "$1" "$image"; }
elif command -v buildah >/dev/null && command -v podman >/dev/null; then
    export BUILDAH_ISOLATION=chroot
    base=localhost/base:$suite
    if ! buildah inspect --type image "$base" >/dev/null 2>&1; then
        mmdebstrap --quiet --variant=minbase --mode=root --include=apt,ca-certificates --components=main,universe \
            ${KEYRING:+--keyring="$KEYRING"} "$suite" "$work/rootfs.tar" ${MIRROR:+"$MIRROR"}
        printf 'FROM scratch\nADD rootfs.tar /\n' >"$work/Containerfile"
        buildah bud -q --layers=false -t "$base" -f "$work/Containerfile" "$work" >/dev/null
    fi
    [ "$cuda" != 1 ] || build_args+=(-v "$(readlink -f /usr/local/cuda):/usr/local/cuda:ro")
    buildah bud -q --format docker --layers=false --network=host "${build_args[@]}" \
        --build-arg "BASE_DEVEL=$base" --build-arg "BASE_RUNTIME=$base" -t "$image" . >/dev/null
    run() {
        podman --storage-driver=overlay --cgroup-manager=cgroupfs --runtime runc run --rm --network=none \
            --ulimit nofile=20000:20000 --ulimit nproc=32768:32768 --read-only --user 1234:1234 "$@"
    }
    inspect() { podman --storage-driver=overlay image inspect --format "$1" "$image"; }
else
    say "skipped: neither docker nor buildah with podman is here"
    exit 77
fi

same() { [ "$1" = "$2" ] || { echo "found $1, expected $2"; return 1; }; }
absent() { run --entrypoint bash "$image" -c "! command -v $1"; }
study() {
    mkdir -m 777 "$work/out-dir"
    run --tmpfs /tmp -v "$PWD/configs:/in/configs:ro" -v "$PWD/samples:/in/samples:ro" -v "$work/out-dir:/work" \
        "$image" study /in/configs/tiny.ini --run /work/run
    [ -s "$work/out-dir/run/metrics.json" ] && [ -s "$work/out-dir/run/report.html" ]
}
refused() { # a folder that cannot be written: one line, exit code 3 or 5
    local code=0 lines
    lines=$(run -v "$PWD/configs:/in/configs:ro" -v "$PWD/samples:/in/samples:ro" "$image" \
        study /in/configs/tiny.ini --run /nowhere/run 2>&1) || code=$?
    echo "$lines"
    { [ "$code" = 3 ] || [ "$code" = 5 ]; } && grep -q '/nowhere' <<<"$lines"
}

check "its user is not root" same "$(inspect '{{.Config.User}}')" equipoise
check "its entry point is the program" same "$(inspect '{{json .Config.Entrypoint}}')" '["equipoise"]'
check "it names its revision" \
    same "$(inspect '{{index .Config.Labels "org.opencontainers.image.revision"}}')" "$(git rev-parse --short HEAD)"
check "its health command runs" run "$image" devices
check "it says its version" run "$image" --version
for tool in gcc cc g++ nvcc cmake ninja; do check "it has no $tool" absent "$tool"; done
check "it runs the tiny study read-only as user 1234" study
check "it says in one line what cannot be written" refused
check "mpirun starts two ranks of it" run --tmpfs /tmp --entrypoint mpirun "$image" --oversubscribe -n 2 equipoise devices
say "$failed failed"
[ "$failed" = 0 ]
