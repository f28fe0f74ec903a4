#!/bin/bash
# test_cli.sh - the conventions that every command keeps: help, one-line errors, exit codes,
# closed descriptors, full disks behind stdout.
source "$SOURCE_DIR/tests/shell.sh"
program=$1

# expect CODE TEXT-IN-STDERR ARGUMENTS...: exit code, and exactly one line that holds the text
expect() {
    local code=$1 text=$2
    shift 2
    "$program" "$@" >"$work/out" 2>"$work/err"
    local got=$?
    if [ $got -ne "$code" ] || [ "$(wc -l <"$work/err")" -ne 1 ] ||
        ! grep -qF -- "$text" "$work/err" || ! grep -q '^equipoise: ' "$work/err"; then
        echo "FAIL: $* gave $got, expected $code and: $text"
        cat "$work/err"
        failed=1
    fi
}

check() { # check WHAT COMMAND...
    local what=$1
    shift
    "$@" || { echo "FAIL: $what"; failed=1; }
}

expect 2 "no command given"
expect 2 "there is no command devises; did you mean devices?" devises
expect 2 "there is no command frobnicate; see equipoise --help" frobnicate
expect 2 "there is no option --hlep; did you mean --help?" devices --hlep

check "--version" test "$("$program" --version | cut -d' ' -f1)" = equipoise
"$program" --help >"$work/help" 2>"$work/err"
check "--help succeeds" test $? -eq 0
check "--help leaves stderr empty" test ! -s "$work/err"
sed -n '/^commands:/,/^$/p' "$work/help" | awk '/^  / {print $1}' >"$work/commands"
check "--help lists commands" grep -qx devices "$work/commands"
while read -r command; do
    "$program" "$command" --help >"$work/out" 2>"$work/err"
    check "$command --help succeeds" test $? -eq 0
    check "$command --help shows its usage" grep -q "^usage: equipoise $command" "$work/out"
    check "$command --help fits a terminal" test -z "$(grep -E '.{101}| $' "$work/out")"
    expect 2 "there is no option --no-such-option" "$command" --no-such-option
done <"$work/commands"

has() { "$program" "$1" --help | grep -qF -- "$2"; } # help of a command has this
check "img2img takes encode_noise" has img2img encode_noise
has txt2img encode_noise && { echo "FAIL: txt2img takes no encode_noise"; failed=1; }

"$program" devices >"$work/out"
check "devices names the CPU" grep -q '^CPU, [0-9]* thread' "$work/out"

EQ_TRACE=1 "$program" frobnicate 2>"$work/err"
check "EQ_TRACE=1 shows where" grep -q '^  at .*commands.c:[0-9]*$' "$work/err"

"$program" --help >/dev/full 2>"$work/err"
check "a full disk behind stdout is exit code 5" test $? -eq 5
"$program" --help >&- 2>&- <&-
check "closed descriptors are no failure" test $? -eq 0
{ "$program" --help 2>"$work/err"; echo $? >"$work/code"; } | true
check "a reader that leaves early is no failure" test "$(cat "$work/code")" -eq 0
check "and goes unmentioned" test ! -s "$work/err"
LC_ALL=de_DE.UTF-8 "$program" devices >"$work/out"
check "numbers keep the point in every locale" grep -q '[0-9]\.[0-9] GiB' "$work/out"
exit $failed
