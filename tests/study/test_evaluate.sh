#!/bin/bash
# test_evaluate.sh - equipoise evaluate from the outside: the table, the file, what it refuses, and
# that neither threads nor the order of rows change a byte.
source "$SOURCE_DIR/tests/shell.sh"
program=$1
cd "$work" || exit 1

# refuse CODE TEXT OPTIONS...: exit code, one line on stderr that holds the text, no new file
refuse() {
    local code=$1 text=$2
    shift 2
    "$program" evaluate "$@" >out 2>err
    local got=$?
    [ $got -eq "$code" ] && [ "$(wc -l <err)" -eq 1 ] && grep -qF -- "$text" err ||
        fail "$* gave $got, expected $code and: $text; $(cat err)"
    [ -e new.json ] && fail "$* left new.json"
}

# films SEED LIFT [EACH]: 600 films, EACH per patient; labels always the same, scores by SEED
films() {
    awk -v seed="$1" -v lift="$2" -v each="${3:-1}" 'BEGIN {
        print "id,patient,label,score"
        srand(1); for (i = 0; i < 600; i++) y[i] = rand() < 0.1
        srand(seed)
        for (i = 0; i < 600; i++) {
            s = (rand() + rand() + lift * y[i]) / (2 + lift)
            printf "film%d,person%d,%d,%.6f\n", i, i / each, y[i], s
        }
    }'
}
quick="--threshold 0.45 --versus-threshold 0.4 --replicates 1000 --permutations 1000"
films 2 1.5 >p.csv
films 3 0.8 >q.csv

"$program" evaluate --predictions p.csv --versus q.csv $quick \
    --out a/r.json >table || fail "a plain comparison gave $?"
for name in balanced_accuracy sensitivity specificity precision f1 mcc kappa youden auroc auprc brier; do
    [ "$(grep -c "\"$name\": {" a/r.json)" -eq 3 ] || fail "$name is not three times in the file"
done
for text in '"comparison": {' '"ci_clopper_pearson": [' '"ci_delong": [' '"p_holm": ' \
    '"test": "mcnemar_exact"' '"test": "delong"' '"threshold": 0.4' '"n": 600' '"patients": 600'; do
    grep -qF "$text" a/r.json || fail "the file lacks $text"
done
grep -qi nan a/r.json && fail "NaN in the file"
grep -q "Youden's index" table || fail "no table"
[ -n "$(tail -c 1 a/r.json)" ] && fail "the file does not end with a newline"

(head -1 p.csv; tail -n +2 p.csv | sort -t, -k4) >p2.csv
for threads in 1 2 3; do
    OMP_NUM_THREADS=$threads "$program" evaluate --predictions p2.csv --versus q.csv \
        $quick --out b.json --force >/dev/null || fail "threads $threads"
    cmp a/r.json b.json || fail "$threads threads give another file"
done

cp a/r.json old.json
refuse 2 "old.json: is there, expected a new file, or --force" --predictions p.csv --out old.json
cmp -s a/r.json old.json || fail "old.json was touched"
cp p.csv own.csv
refuse 2 '--out is "own.csv", which is read' --predictions own.csv --out own.csv --force
cmp -s p.csv own.csv || fail "predictions were written over"
refuse 3 "p.csv/new.json: found p.csv: Not a directory" --predictions none.csv --out p.csv/new.json
"$program" evaluate --predictions p.csv --out old.json --force >/dev/null || fail "--force gave $?"
cmp -s a/r.json old.json && fail "--force wrote nothing"

refuse 2 "--predictions" --out new.json
refuse 2 "--threshold" --predictions p.csv --threshold 1.5 --out new.json
refuse 2 "--replicates" --predictions p.csv --replicates 99 --out new.json
refuse 2 "--versus-threshold without --versus" --predictions p.csv --versus-threshold 0.3
refuse 3 "none.csv" --predictions none.csv --out new.json
sed '5s/,[^,]*$/,0.5x/' p.csv >bad.csv
refuse 3 'bad.csv:5: score "0.5x"' --predictions bad.csv --out new.json
sed '7d' q.csv >short.csv
refuse 3 'short.csv: no id "film5"' --predictions p.csv --versus short.csv --out new.json
awk -F, -v OFS=, 'NR == 9 {$3 = 1 - $3} 1' q.csv >flipped.csv
refuse 3 'flipped.csv:9: id "film7" has label' --predictions p.csv --versus flipped.csv --out new.json
ln -s /dev/full full && "$program" evaluate --predictions p.csv >full 2>err
[ $? -eq 5 ] || fail "a full disk behind stdout"

# Patients with several films: other tests count, and it says so.
films 2 1.5 2 >p.csv
films 3 0.8 2 >q.csv
"$program" evaluate --predictions p.csv --versus q.csv --out c.json >/dev/null 2>err || fail "clustered"
grep -q "patients have several films" err || fail "does not say that patients have several films"
grep -qF '"test": "mcnemar_exact"' c.json && fail "McNemar counts though patients have several films"
grep -qF '"p_mcnemar_exact"' c.json || fail "McNemar is not beside"
exit $failed
