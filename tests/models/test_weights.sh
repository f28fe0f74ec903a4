#!/bin/bash
# test_weights.sh - equipoise weights: inspect and convert, files and folders, and their failures.
source "$SOURCE_DIR/tests/shell.sh"
program=$1
cd "$work" || exit 1

check() { # check WHAT COMMAND...
    local what=$1
    shift
    "$@" || { echo "FAIL: $what"; failed=1; }
}

# expect CODE TEXT-IN-STDERR ARGUMENTS...: exit code, and one line of error that holds the text
expect() {
    local code=$1 text=$2
    shift 2
    "$program" weights "$@" >out 2>err
    local got=$?
    if [ $got -ne "$code" ] || [ "$(grep -c '^equipoise: ' err)" -ne 1 ] || ! grep -qF -- "$text" err; then
        echo "FAIL: weights $* gave $got, expected $code and: $text"
        cat err
        failed=1
    fi
}

# file NAME HEADER DATA-AS-PRINTF-TEXT
file() {
    local n=${#2}
    { printf "\\x$(printf %02x $((n % 256)))\\x$(printf %02x $((n / 256)))\\0\\0\\0\\0\\0\\0"; printf %s "$2"; printf "$3"; } >"$1"
}

header='{"__metadata__":{"note":"two\nlines"},"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"n":{"dtype":"I64","shape":[],"data_offsets":[8,16]}}'
data='\0\0\300\77\0\0\0\300\7\0\0\0\0\0\0\0' # 1.5, -2, 7
file a.safetensors "$header" "$data"
file large.safetensors '{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}' '\0\0\200\110' # 2^18
file nan.safetensors '{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}' '\0\0\300\177'

"$program" weights inspect a.safetensors >out 2>err
check "inspect succeeds" test $? -eq 0
check "inspect is quiet" test ! -s err
check "its sum" grep -q "sha256 $(sha256sum a.safetensors | cut -d' ' -f1)" out
check "metadata stay on a line" grep -qxF '  metadata note: two\x0alines' out
check "tensors" grep -qxF '  w  F32 [2]  max 2' out
check "scalars" grep -qxF '  n  I64 []' out
check "totals" grep -qxF '  2 tensors, 3 values, 16 bytes' out

"$program" weights inspect large.safetensors >out 2>err
check "large values are warned about" grep -q 'is F32 its true dtype' err
"$program" weights inspect nan.safetensors >out 2>err
check "NaN is warned about" grep -q '1 values are NaN or infinite' err

"$program" weights convert nan.safetensors nan16.safetensors --dtype f16 2>err
check "NaN is converted" test $? -eq 0
check "and warned about" grep -q 'nan.safetensors: tensor "w": 1 values are NaN or infinite' err

"$program" weights convert a.safetensors half.safetensors --dtype f16 2>err
check "to f16" test $? -eq 0
"$program" weights inspect half.safetensors >out
check "f16 inside" grep -qxF '  w  F16 [2]  max 2' out
check "integers stay" grep -qxF '  n  I64 []' out
"$program" weights convert half.safetensors back.safetensors --dtype f32 2>err
"$program" weights inspect back.safetensors | sed 1,2d >back.txt
"$program" weights inspect a.safetensors | sed 1,2d | sort >a.txt
check "there and back" test "$(sort back.txt)" = "$(cat a.txt)"

# bf16 keeps 8 bits, ties to even: 1.00390625 (halfway) -> 1, 1.01171875 (halfway) -> 1.015625
file tie.safetensors '{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}' '\0\200\200\77\0\200\201\77'
"$program" weights convert tie.safetensors brain.safetensors --dtype bf16 2>err
check "to bf16" test $? -eq 0
check "bf16 inside" cmp -s <(tail -c 4 brain.safetensors) <(printf '\200\77\202\77')

mkdir shards # three tensors in two files and their index, become one
file shards/model-00001-of-00002.safetensors '{"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}' '\0\0\300\77'
cp a.safetensors shards/model-00002-of-00002.safetensors
echo '{"weight_map":{"b":"model-00001-of-00002.safetensors","w":"model-00002-of-00002.safetensors","n":"model-00002-of-00002.safetensors"}}' \
    >shards/model.safetensors.index.json
"$program" weights convert shards/model.safetensors.index.json one.safetensors --dtype f32 2>err
check "shards to a file" test $? -eq 0
"$program" weights convert shards whole --dtype f32 2>err
check "folder of shards" test $? -eq 0
check "only the whole is there" test "$(ls whole)" = model.safetensors
check "the same whole" cmp -s whole/model.safetensors one.safetensors
"$program" weights inspect one.safetensors | sed -n '3,$p' | sort >out
check "all tensors" cmp -s out <(printf '  3 tensors, 4 values, 20 bytes\n  b  F32 [1]  max 1.5\n  n  I64 []\n  w  F32 [2]  max 2\n' | sort)
mkdir variant # diffusers' names of half-precision shards
cp shards/model-00001-of-00002.safetensors variant/m.fp16-00001-of-00002.safetensors
cp shards/model-00002-of-00002.safetensors variant/m.fp16-00002-of-00002.safetensors
sed 's/model-/m.fp16-/g' shards/model.safetensors.index.json >variant/m.safetensors.index.fp16.json
"$program" weights convert variant joined --dtype f32 2>err
check "half-precision shards" test "$(ls joined)" = m.safetensors
check "the same in them" cmp -s joined/m.safetensors one.safetensors
rm shards/model-00001-of-00002.safetensors
expect 3 "model-00001-of-00002.safetensors: found no such file" convert shards x --dtype f32
mkdir halves
cp half.safetensors halves/model.fp16.safetensors
"$program" weights convert halves full --dtype f32 2>err
check "half precision's name goes" test -f full/model.safetensors
cp tie.safetensors halves/model.safetensors
"$program" weights convert tie.safetensors again.safetensors --dtype f32 2>err
"$program" weights convert halves both --dtype f32 2>err
check "full precision goes first" cmp -s both/model.safetensors again.safetensors
check "half precision is left out" grep -q 'model.fp16.safetensors: is left out' err
mkdir -p mixed/unet # full precision in shards goes before a half-precision file, too
cp one.safetensors mixed/unet/model-00001-of-00001.safetensors
sed 's/model-0000[12]-of-00002/model-00001-of-00001/g' shards/model.safetensors.index.json \
    >mixed/unet/model.safetensors.index.json
cp half.safetensors mixed/unet/model.fp16.safetensors
"$program" weights convert mixed full-shards --dtype f32 2>err
"$program" weights inspect full-shards/unet/model.safetensors >out
check "full-precision shards go first" grep -qxF '  3 tensors, 4 values, 20 bytes' out
check "half precision is left out of them" grep -qF \
    'model.fp16.safetensors: is left out, unet/model.safetensors.index.json being there too' err

mkdir -p model/unet
cp a.safetensors model/unet/
echo '{"a": 1}' >model/unet/config.json
echo x >model/unet/notes.bin
"$program" weights convert model half --dtype f16 2>err
check "folder" test $? -eq 0
check "its weights" cmp -s half/unet/a.safetensors half.safetensors
check "its config" cmp -s half/unet/config.json model/unet/config.json
check "what it leaves out is said" grep -q 'notes.bin: is left out' err
"$program" weights inspect half >out
check "folder inspected" grep -qxF '1 files, 3 values, 12 bytes' out

expect 2 "nothing is overwritten" convert a.safetensors half.safetensors --dtype f16
expect 2 "nothing is overwritten" convert model half --dtype f16
ln -s model alias
for inside in model/sub model/../model/unet/deep/er alias/sub; do
    expect 2 "$inside: lies in model, which it is made of" convert model "$inside" --dtype f16
    expect 2 "$inside: lies in model, which it is made of" convert a.safetensors "$inside" --config model
    expect 2 "$inside: lies in model, which it is made of" merge-lora model a.safetensors "$inside"
done
check "nothing was made there" test "$(find model | wc -l)" = 5
"$program" weights convert model model-half --dtype f16 2>err
check "a name that begins alike is no place inside" test $? -eq 0
expect 2 "--dtype is missing" convert a.safetensors x
expect 2 "expected f16, bf16 or f32" convert a.safetensors x --dtype f64
expect 2 "expected inspect, convert or merge-lora" show a.safetensors
expect 2 "inspect: found --dtype, which it does not take" inspect a.safetensors --dtype f16
expect 2 "convert: found --scale, which it does not take" convert a.safetensors x --dtype f16 --scale 2
expect 2 "merge-lora: found --dtype, which it does not take" merge-lora model a.safetensors x --dtype f16
expect 2 "half: is there already; nothing is overwritten" merge-lora model a.safetensors half
expect 3 "absent: cannot open it" inspect absent
expect 7 'tensor "w": found the value 262144, expected F16' convert large.safetensors x --dtype f16
head -c 100 a.safetensors >cut.safetensors
expect 3 "cut.safetensors: found a header length of" inspect cut.safetensors
head -c -1 a.safetensors >model/unet/z.safetensors
expect 3 "z.safetensors: tensor \"n\": found data_offsets" convert model x --dtype f16
echo '{}' >model/model_index.json
expect 3 "model_index.json: _class_name: found nothing" inspect model
mkdir empty
expect 3 "found no safetensors file" inspect empty
expect 3 "found no safetensors file" convert empty x --dtype f16

dd if=/dev/zero of=zeros bs=1000 count=400 2>/dev/null
wide='{"w":{"dtype":"F32","shape":[100000],"data_offsets":[0,400000]}}'
file wide.safetensors "$wide" ''
cat zeros >>wide.safetensors
(ulimit -f 100; trap '' XFSZ; "$program" weights convert wide.safetensors x --dtype f32) >out 2>err
check "a full disk is exit code 5" test $? -eq 5
check "and said in a line" grep -q '^equipoise: x: cannot write it' err
check "nothing half-written is left" test -z "$(find . -name 'x*')"
exit $failed
