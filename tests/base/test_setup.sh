#!/bin/bash
# test_setup.sh - .ci/setup against a stand-in for apt: what it says and does when packages are missing
# and fetching or installing them fails. Nothing is installed.
source "$SOURCE_DIR/tests/shell.sh"

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
[ "\$1" != -v ] || exit "\$(cat "$work/sudo-says")"
echo sudo >>"$work/calls"
exec "\$@"
END
echo 0 >"$work/sudo-says"
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
    (unset DEBIAN_FRONTEND; PATH=${path:-$work/bin:$PATH} sh "$SOURCE_DIR/.ci/setup") >"$work/out" 2>"$work/err"
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


# Nobody who could install anything: what to run is said, nothing is run.
needs_root() { # WHAT
    [ $code = 1 ] && [ -z "$(calls)" ] || fail "$1: $code $(calls)"
    grep -q '^equipoise: packages are missing, and installing them needs root. As root, run:$' "$work/err" &&
        grep -q '^    apt-get update && apt-get install -y .* gcc .*libpng-dev' "$work/err" || fail "$1: $(cat "$work/err")"
}
echo 1 >"$work/sudo-says"
run 1000 0 0
needs_root "sudo that refuses"
mkdir "$work/few" # no sudo
ln -s "$(command -v sh)" "$(command -v grep)" "$(command -v env)" "$(command -v cat)" "$work/bin"/{id,dpkg-query,apt-get} "$work/few"
path=$work/few
run 1000 0 0
needs_root "no sudo"
rm "$work/few/apt-get"
run 0 0 0
[ $code = 1 ] || fail "no apt-get: $code"
said 'equipoise: there is no apt-get to install these missing packages with: gcc '
rm "$work/few/dpkg-query" # another system: CMake has the word
run 0 0 0
[ $code = 0 ] && [ ! -s "$work/err" ] && grep -q 'no Debian or Ubuntu; .*libpng-dev:PNG-films' "$work/out" ||
    fail "no Debian: $code $(cat "$work/out" "$work/err")"

exit $failed
