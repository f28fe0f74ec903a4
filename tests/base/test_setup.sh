#!/bin/bash
# test_setup.sh - .ci/setup against a stand-in for apt: what it says and does when packages are missing
# and fetching or installing them fails. Nothing is installed.
set -u
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
fail() {
    echo "FAILED: $*"
    failed=1
}

# Stand-ins: no package is there; apt-get fails as often as the files say, and notes its calls.
mkdir "$work/bin"
stand_in() { # NAME, script on stdin
    { echo '#!/bin/sh'; cat; } >"$work/bin/$1"
    chmod +x "$work/bin/$1"
}
stand_in dpkg-query <<'END'
exit 1
END
stand_in sleep <<'END'
END
stand_in sudo <<END
echo sudo >>"$work/calls"
exec "\$@"
END
stand_in apt-get <<END
echo "\$1 \$DEBIAN_FRONTEND" >>"$work/calls"
left=\$(cat "$work/fail-\$1")
[ "\$left" -gt 0 ] || exit 0
echo \$((left - 1)) >"$work/fail-\$1"
exit 100
END

run() { # USER-ID FAILING-UPDATES FAILING-INSTALLS
    stand_in id <<<"echo $1"
    echo "$2" >"$work/fail-update"
    echo "$3" >"$work/fail-install"
    : >"$work/calls"
    (unset DEBIAN_FRONTEND; PATH=$work/bin:$PATH sh "$SOURCE_DIR/.ci/setup") >"$work/out" 2>"$work/err"
    code=$?
}
calls() { tr '\n' ',' <"$work/calls"; }
said() { # WORDS: one line of error, with these
    [ "$(wc -l <"$work/err")" = 1 ] && grep -qF -- "$1" "$work/err" || fail "says: $(cat "$work/err")"
}

run 0 0 0
[ $code = 0 ] && [ "$(calls)" = 'update ,install noninteractive,' ] || fail "plain: $code $(calls)"
grep -q 'Installing from Debian:.*libpng-dev (PNG-films)' "$work/out" || fail "does not say what and why"
run 0 2 0
[ $code = 0 ] && [ "$(calls)" = 'update ,update ,update ,install noninteractive,' ] || fail "retry: $code $(calls)"
run 0 9 0
[ $code = 1 ] && [ "$(calls)" = 'update ,update ,update ,' ] || fail "no network: $code $(calls)"
said 'equipoise: the package lists could not be fetched'
run 0 0 9
[ $code = 1 ] && [ "$(calls)" = 'update ,install noninteractive,' ] || fail "no install: $code $(calls)"
said 'equipoise: these packages could not be installed: gcc '
run 1000 1 0
[ $code = 0 ] && [ "$(calls)" = 'sudo,update ,sudo,update ,sudo,install noninteractive,' ] || fail "sudo: $code $(calls)"

exit $failed
