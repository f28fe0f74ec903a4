#!/bin/bash
# test_synthetic_stage.sh - the films of a study's stage synth-a: those of a killed process are kept, those of a record
# that was removed are not, and what a killed process left half-written is in no hash. $1: the program.
source "$SOURCE_DIR/tests/shell.sh"
program=$1
run=$work/run
films=$run/synthetic/bacteria/images
stage() { "$program" study "$SOURCE_DIR/configs/tiny.ini" --run "$run" --stage "$@" >"$work/out" 2>"$work/err"; }
must() { stage "$@" || fail "$*: exit code $?: $(tail -1 "$work/err")"; }
same() { # WHAT: films and table are those that were made first
    (cd "$run/synthetic" && find . -type f | sort | xargs sha256sum) | cmp - "$work/sums" || fail "$1: other films"
}

for s in prepare ldm-a synth-a; do must $s; done
(cd "$run/synthetic" && find . -type f | sort | xargs sha256sum) >"$work/sums"
first=$(find "$films" -name '*.png' | sort | head -1)
last=$(find "$films" -name '*.png' | sort | tail -1)
[ "$first" != "$last" ] || fail "no films"
must synth-a

# ---- killed half-way: the films that are there stay, a half-written one goes, and is in no hash
sed 's/"done": true/"done": false/' -i "$run/stages/synth-a/stage.json"
grep -q '"done": false' "$run/stages/synth-a/stage.json" || fail "the record of a stage looks otherwise"
rm "$last" "$run/synthetic/bacteria/manifest.csv"
echo half >"$last.tmp-12345"
kept=$(stat -c %i-%y "$first")
must synth-a
[ "$(stat -c %i-%y "$first")" = "$kept" ] || fail "a stage that continues made a film again"
same "a stage that continued"
must synth-a

# ---- changed afterwards: refused, and made again as the message says
cp "$last" "$first"
stage synth-a
rc=$?
[ $rc = 3 ] || fail "a changed film: exit code $rc, expected 3"
grep -q "bacteria: has changed since stage synth-a made it; remove .*/stages/synth-a to make it again" "$work/err" ||
    fail "a changed film: $(tail -1 "$work/err")"
rm -r "$run/stages/synth-a"
must synth-a
same "a stage that was made again"

[ $failed = 0 ] && echo "the same films"
exit $failed
