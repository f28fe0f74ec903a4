#!/bin/bash
# test_bad_input.sh - what users get wrong, each answered by one clear error, the exit code of its
# class, and nothing half-written under a final name. $1: the program.
source "$SOURCE_DIR/tests/shell.sh"
program=$1
films=$SOURCE_DIR/samples/films
tiny=$SOURCE_DIR/configs/tiny.ini
cd "$work" || exit 1

# refuse CODE WORDS ABSENT COMMAND...: exit code CODE, one line "equipoise: ..." that holds WORDS, and of
# ABSENT (a file or folder, "" for none) nothing: neither it, nor a temporary beside or below it.
refuse() {
    local code=$1 words=$2 absent=$3
    shift 3
    "$@" >out 2>err
    local got=$?
    [ $got = "$code" ] || fail "$*: exit code $got, expected $code: $(tail -1 err)"
    [ "$(grep -c '^equipoise: ' err)" = 1 ] || fail "$*: $(grep -c '^equipoise: ' err) errors, expected one"
    grep '^equipoise: ' err | grep -qF -- "$words" || fail "$*: no \"$words\" in: $(tail -1 err)"
    [ -z "$absent" ] && return
    [ ! -e "$absent" ] || fail "$*: left $absent"
    [ -z "$(find . -path "./$absent*" \( -name '*.tmp-*' -o -name '*.partial' \))" ] || fail "$*: left a temporary"
}

list=("$films"/normal/*.jpeg)
sick=("$films"/bacteria/*.jpeg)
make_films() { # FOLDER: eight good films of two classes
    mkdir -p "$1/normal" "$1/bacteria"
    cp "${list[@]:0:4}" "$1/normal"
    cp "${sick[@]:0:4}" "$1/bacteria"
}
make_films good
"$program" prepare folders good --out prepared --size 96 --val-share 0.2 >out 2>err || fail "good films: $(tail -1 err)"

# ---- films
prepare() { refuse "$1" "$2" "$3" "$program" prepare "${@:4}" --out "$3" --size 96; }
prepare 3 "nowhere" a1 folders nowhere
{
    echo path,label,patient
    for f in good/normal/*; do echo "$f,normal,$f"; done
    echo good/bacteria/absent.png,bacteria,p9
} >missing.csv
prepare 3 "absent.png: cannot open" a2 csv missing.csv

bad_film() { # NAME WORDS: good films and bad/bacteria/NAME, which is refused
    prepare 3 "$2" "$1.out" folders bad
    grep -q "^equipoise: bad/bacteria/$1: " err || fail "$1: the file is not named: $(cat err)"
    rm "bad/bacteria/$1"
}
make_films bad
png=$(find prepared/images -name '*.png' | sort | head -1)
head -c $(($(stat -c %s "$png") / 2)) "$png" >bad/bacteria/cut.png
bad_film cut.png truncated
head -c $(($(stat -c %s "${sick[5]}") / 2)) "${sick[5]}" >bad/bacteria/cut.jpeg
bad_film cut.jpeg truncated
: >bad/bacteria/empty.png
bad_film empty.png empty
# 96 x 96, 16 bits a channel, red
base64 -d >bad/bacteria/deep.png <<'PNG'
iVBORw0KGgoAAAANSUhEUgAAAGAAAABgEAIAAAA9ajwsAAAA2ElEQVR42u3SMREAMAgAMfbKYEEWMqsJFXjo0iVLBPx9TGedS74ZEtBA
NBANRAORBqKBaCAaiDQQDUQD0UCkgWggGogGIg1EA9FANBANRBqIBqKBaCDSQDQQDUQDkQaigWggGog0EA1EA9FANJAQNBANRAPRQKSB
aCAaiAYiDUQD0UA0EGkgGogGooFIA9FANBANRAORBqKBaCAaiDQQDUQD0UCkgWggGogGIg1EA9FANBANRBqIBqKBaCDSQDQQDUQDkQai
gWggGog0EA1EA9FANJAQNBD/uP6UZO2yhNT0AAAAAElFTkSuQmCC
PNG
bad_film deep.png 16-bit

{
    echo path,label,patient,split
    echo good/normal/$(basename "${list[0]}"),normal,p1,train
    echo good/normal/$(basename "${list[1]}"),normal,p2,test
    echo good/bacteria/$(basename "${sick[0]}"),bacteria,p3,train
    echo good/bacteria/$(basename "${sick[1]}"),bacteria,p3,test
    echo good/bacteria/$(basename "${sick[2]}"),virus,p4,train
} >overlap.csv
prepare 3 'patient "p3" is in ' a3 csv overlap.csv
prepare 2 "overlap.csv: has splits, which are kept, expected no shares" a3 csv overlap.csv --val-share 0.1
refuse 3 'patient "p3" is in ' a4/metrics.json "$program" study "$tiny" --run a4 --set data.source=overlap.csv \
    --set data.images=.
[ ! -e a4/stages/prepare/data ] || fail "an overlapping split left prepared films"

LC_ALL=C sed $'s/,virus,/,vir\xe9,/' overlap.csv >latin.csv
prepare 3 'class: found 0xE9 as byte 4, expected UTF-8' a3 csv latin.csv

# ---- what a run would stumble over later is found before it has a folder
refuse 4 "device = cuda" a5 "$program" study "$tiny" --run a5 --set study.device=cuda
refuse 4 "device = cuda" a5 "$program" train-ldm "$tiny" --out a5 --set study.device=cuda
refuse 2 'no film of class "fungus", expected one of: bacteria, normal, virus' a5 "$program" study "$tiny" \
    --run a5 --set data.disease_b=fungus
# a prepared set where a stage would put its own
"$program" prepare folders good --out set/prepare/data --size 96 --val-share 0.2 >out 2>err || fail "set: $(tail -1 err)"
train_on_set() {
    refuse 2 "$1" "" "$program" train-classifier "$tiny" --class bacteria --out set \
        --set data.format=csv --set data.source=set/prepare/data/manifest.csv
    [ -e set/prepare/data/manifest.csv ] || fail "the films that were read are gone"
}
train_on_set "set: is there and holds other files"
: >set/log.jsonl # as if another stage had run there
train_on_set "set/prepare/data/manifest.csv: is in set/prepare/data"
refuse 2 'no film of class "fungus"' a5 "$program" train-classifier "$tiny" --class fungus --out a5
refuse 2 'no film of class "fungus"' a5 "$program" train-autoencoder "$tiny" --class fungus --out a5 \
    --set autoencoder.base="$SOURCE_DIR/configs/models/tiny/vae"
refuse 2 '--class is "normal", which data.normal is too' a5 "$program" train-classifier "$tiny" --class normal --out a5
refuse 2 "found synthesis.count = 0 with --class normal" a5 "$program" synthesize "$tiny" --class normal --out a5 \
    --model "$SOURCE_DIR/samples/base" --set synthesis.count=0
refuse 3 "missing.csv: is a file, expected a run folder" "" "$program" study "$tiny" --run missing.csv
refuse 3 "missing.csv: is a file, expected a run folder" "" "$program" study "$tiny" --run missing.csv --list-stages
# submit.sh passes that on: stages that cannot be listed are not complete ones.
submit() { CONFIG=$1 RUN=a5 EQUIPOISE=$2 "$SOURCE_DIR/configs/slurm/submit.sh"; }
refuse 3 "nowhere.ini" a5 submit nowhere.ini "$program"
submit "$tiny" ./absent >out 2>err && fail "submit.sh without its program: exit code 0: $(cat out)"
grep -q 'absent: No such file' err || fail "submit.sh without its program: $(cat err)"
refuse 2 "found --stage and --plan, expected one of them" a5 "$program" study "$tiny" --run a5 --stage prepare --plan
refuse 2 "found --ranks without --plan, expected both" a5 "$program" study "$tiny" --run a5 --ranks 2
refuse 2 '--run is "", expected DIR' a5 "$program" study "$tiny" --run ""
refuse 2 "data.source is empty" a5 "$program" train-ldm "$tiny" --out a5 --set data.source=
refuse 3 "absent.safetensors" a5 "$program" study "$tiny" --run a5 --set classifier.weights=absent.safetensors
refuse 3 "films.csv" a5 "$program" study "$tiny" --run a5 --set classifier.weights="$SOURCE_DIR/samples/films.csv"
synthesize() { # MODEL WORDS
    refuse 3 "$2" a5 "$program" synthesize "$tiny" --model "$1" --class virus --out a5
}
synthesize nowhere nowhere
synthesize good good/
cp -r "$SOURCE_DIR/samples/base" model
unet=model/unet/diffusion_pytorch_model.safetensors
LC_ALL=C sed -i 's/"conv_in\.bias"/"conv_in.bios"/' $unet
synthesize model conv_in.bias
cp "$SOURCE_DIR/samples/base/${unet#model/}" $unet
truncate -s -1 model/vae/diffusion_pytorch_model.safetensors
synthesize model model/vae/diffusion_pytorch_model.safetensors
cp "$SOURCE_DIR/samples/base/vae/diffusion_pytorch_model.safetensors" model/vae
refuse_text() { # WORDS: txt2img with ./model
    refuse 3 "$1" x.png "$program" txt2img --model model --prompt x --size 64 --out x.png
}
wrong_class() { # FILE KEY FOUND EXPECTED OWN
    sed "s/${5:-$4}/$3/" "$SOURCE_DIR/samples/base/$1" >"model/$1"
    refuse_text "model/$1: $2: found"
    grep -q "found \"*$3\"*, expected \"*$4" err || fail "$1: $(cat err)"
    cp "$SOURCE_DIR/samples/base/$1" "model/$1"
}
wrong_class model_index.json unet UNet3DConditionModel UNet2DConditionModel
wrong_class model_index.json _class_name StableDiffusionXLPipeline StableDiffusionPipeline
wrong_class scheduler/scheduler_config.json _class_name FlowMatchEulerDiscreteScheduler DDIMScheduler
wrong_class unet/config.json _class_name UNet3DConditionModel UNet2DConditionModel
wrong_class vae/config.json _class_name VQModel AutoencoderKL AutoencoderTiny
wrong_class text_encoder/config.json "architectures[0]" T5EncoderModel CLIPTextModel

scheduler=model/scheduler/scheduler_config.json
sed 's/"v_prediction"/"epsilon", "rescale_betas_zero_snr": true/; s/leading/trailing/' "$SOURCE_DIR/samples/base/scheduler/scheduler_config.json" >$scheduler
refuse_text "$scheduler: prediction_type: found epsilon with zero terminal SNR"
# what a Stable Diffusion pipeline overrules is said once, and makes the film of the file as it should be
small_film() { "$program" txt2img --model "$1" --prompt x --size 64 --steps 2 --out "$2" 2>err || fail "$2: $(tail -1 err)"; }
small_film "$SOURCE_DIR/samples/base" plain.png
! grep -q warning err || fail "a warning: $(cat err)"
sed 's/"steps_offset": 1/"steps_offset": 0/; s/"clip_sample": false/"clip_sample": true/' "$SOURCE_DIR/samples/base/scheduler/scheduler_config.json" >$scheduler
small_film model overruled.png
[ "$(grep -c "warning: $scheduler: steps_offset is taken for 1 and clip_sample for false" err)" = 1 ] || fail "no warning: $(cat err)"
cmp -s plain.png overruled.png || fail "steps_offset or clip_sample had an effect"
cp "$SOURCE_DIR/samples/base/scheduler/scheduler_config.json" $scheduler
refuse 2 "found 1000 sampling steps with leading timesteps, of which the first would be 1000" x.png \
    "$program" txt2img --model model --prompt x --size 64 --steps 1000 --out x.png

# ---- a lone stage that was refused for a setting runs when that is corrected
lone_autoencoder() {
    "$program" train-autoencoder "$tiny" --out a12 --set autoencoder.base="$SOURCE_DIR/samples/base/vae" \
        --set autoencoder.steps=1 --set autoencoder.batch=1 --set study.device=cpu --set data.source=good \
        --set data.format=folders --set data.images= "$@"
}
refuse 2 "autoencoder.frozen: found decodr, expected" a12 lone_autoencoder --set autoencoder.frozen=encoder,decodr
refuse 2 "training films, expected at least autoencoder.batch = 60" a12/stage.json \
    lone_autoencoder --set autoencoder.batch=60
lone_autoencoder --set autoencoder.frozen=encoder >out 2>err || fail "corrected: $(tail -1 err)"
lone_classifier() {
    "$program" train-classifier "$tiny" --class bacteria --out a13 --set classifier.epochs=1 \
        --set data.source=good --set data.format=folders --set data.images= --set data.train_share=0.5 --set data.val_share=0.25 "$@"
}
refuse 2 "training films, expected at least classifier.batch = 60" a13/stage.json \
    lone_classifier --set classifier.batch=60
refuse 2 "classifier.batch = 1: batch normalisation has one value a channel at data.size = 80, expected a batch of 2" \
    a13/stage.json lone_classifier --set classifier.batch=1 --set data.size=80
refuse 2 "one value a channel at data.size = 304, expected a batch of 2 or more, or classifier.aux_weight = 0" \
    a13/stage.json lone_classifier --set classifier.batch=1 --set classifier.aux_weight=.4 --set data.size=304
lone_classifier --set classifier.batch=2 --set classifier.accumulate=1 >out 2>err || fail "corrected: $(tail -1 err)"

# ---- what img2img and txt2img would find after sampling
base=$SOURCE_DIR/samples/base
film() { # CODE WORDS OUT OPTIONS...
    refuse "$1" "$2" "" "$program" txt2img --model "$base" --prompt "${prompt:-x}" --size 64 --out "$3" "${@:4}"
}
film 2 '--out is "", expected FILE.png' "" --steps 2
film 2 '--out is "good", expected the name of a .png file' good --force
film 2 '--out is "x.jpg", expected the name of a .png file' x.jpg
mkdir folder.png
film 3 'folder.png: found a folder, expected a file' folder.png --force
film 2 '--lora is "missing.csv:nan", expected a file, or FILE:S with S in -100..100' x.png --lora missing.csv:nan
film 2 '--lora is "missing.csv:101", expected' x.png --lora missing.csv:101
cp "${list[0]}" own.png
refuse 2 '--out is "own.png", which is read, expected another file' "" "$program" img2img --model "$base" \
    --image own.png --prompt x --out own.png --force
cmp "${list[0]}" own.png || fail "a film was written over by one made from it"
refuse 2 "found --force without --grid" "" "$program" report good --force
refuse 2 '--grid is "x.jpg", expected the name of a .png file' x.jpg "$program" report good --grid x.jpg
if (ulimit -v 2000000 && "$program" --version) >out 2>err; then # sanitizers need more
    little() { (ulimit -v 2000000 && "$@"); }
    refuse 5 "MiB needed; 16384 x 16384 px are too many, expected a smaller --size" x.png little "$program" txt2img \
        --model "$base" --prompt x --size 16384 --out x.png
    refuse 5 "MiB needed; 1536 x 1536 px are too many" x.png little timeout 120 "$program" txt2img --model "$base" \
        --prompt x --size 1536 --steps 900 --out x.png # the steps fit, the decoder does not
    refuse 5 "MiB needed; lower synthesis.batch (it is 400)" a14/films/manifest.csv little "$program" synthesize "$tiny" \
        --model "$base" --class virus --out a14 --set synthesis.count=400 --set synthesis.batch=400 \
        --set data.size=256 --set synthesis.mode=text-to-image
fi
prompt=$'lung \xe9' film 2 'prompt "lung ...": found 0xE9 as byte 6, expected UTF-8' x.png
film 3 "missing.csv: Not a directory, expected a folder to write into" missing.csv/x.png
film 2 "found 2000 sampling steps, expected 1.." x.png --steps 2000
tensors() { # FILE HEADER FLOATS
    { printf "\\x$(printf %02x ${#2})\0\0\0\0\0\0\0"; printf %s "$2"; head -c $((4 * $3)) /dev/zero; } >"$1"
}
tensors none.safetensors '{}' 0
film 3 "none.safetensors: found no tensors, expected noise or step_noise" x.png --noise none.safetensors
tensors steps.safetensors '{"step_noise":{"dtype":"F32","shape":[1,32,8,8],"data_offsets":[0,8192]}}' 2048
film 3 'steps.safetensors: tensor "step_noise": found with --eta 0, expected --eta above 0' x.png --steps 1 \
    --noise steps.safetensors
[ ! -e x.png ] || fail "x.png was made"
long=$(printf 'lung %.0s' {1..80})
"$program" txt2img --model "$base" --prompt "$long" --size 64 --steps 1 --out long.png >out 2>err ||
    fail "a long prompt: $(tail -1 err)"
[ "$(grep -c 'prompt "lung lung .*\.\.\.": found 80 tokens, the model sees the first 75' err)" = 1 ] ||
    fail "a long prompt is cut without one warning: $(cat err)"

refuse 2 '--dump and --out are both "x.out"' x.out "$program" forward unet --weights "$SOURCE_DIR/samples/base/unet" --in i --out x.out --dump ./x.out
refuse 2 '--dump and --out are both "new/x"' new "$program" forward unet --weights "$SOURCE_DIR/samples/base/unet" \
    --in i --out new/x --dump new/x
mkdir two && ln -s two too
refuse 2 '--dump and --out are both "two/x"' two/x "$program" forward unet --weights "$SOURCE_DIR/samples/base/unet" --in i --out two/x --dump too/x

# ---- settings
refuse 3 "nowhere: found no such folder, expected the one of the films in" a5 "$program" study "$tiny" --run a5 \
    --set data.images=nowhere
refuse 2 "found --normal without --train-ratio" a5 "$program" prepare folders good --out a5 --normal normal
refuse 2 '--size is "7", expected a whole number in 8..4096' a5 "$program" prepare folders good --out a5 --size 7
mkdir -p bad/bacteria/more
cp good/normal/* bad/bacteria/more
prepare 3 "folders deep, expected <class>/<file>" a5 folders bad
grep -q "the first: bad/bacteria/more/.*: 2 folders deep" err || fail "no source before: $(cat err)"
rm -r bad/bacteria/more
refuse 3 "missing.csv/x: found missing.csv: Not a directory, expected a folder to write into" x "$program" \
    prepare folders good --out missing.csv/x
grep -q 'films in good' err && fail "an output without a folder was found after films were read"
prepare 2 "shares: train 0.7, val 0.2, pool 0.2, expected a part for train and at most 1 in all" a5 folders good \
    --val-share 0.2 --pool-share 0.2
prepare 2 'folder of images with format "folders"' a6 folders good --images good
refuse 2 "classifier.frozen: found Mixed_9" a6 "$program" study "$tiny" --run a6 --set classifier.frozen=Conv2d,Mixed_9
refuse 2 "device = gpu: expected auto, cpu, cuda or cuda:N" x.png "$program" txt2img --model "$SOURCE_DIR/samples/base" \
    --prompt x --size 64 --out x.png --device gpu
sed 's/^warmup = /warmop = /' "$tiny" >key.ini
refuse 2 "ldm.warmop; did you mean ldm.warmup?" a5 "$program" study key.ini --run a5
refuse 2 "key.ini:" a5 "$program" study key.ini --run a5
refuse 2 "data.disease_a: found 0xE9 as byte 4, expected UTF-8" a5 "$program" study "$tiny" --run a5 --set data.disease_a=$'vir\xe9'
sed 's/^guidance = 3/guidance = 300/' "$tiny" >range.ini
refuse 2 "synthesis.guidance = 300 is outside 1..100" a6 "$program" study range.ini --run a6
refuse 2 "study.seed" a6 "$program" study "$tiny" --run a6 --set study.seed=-1
refuse 3 "no.ini" a6 "$program" study no.ini --run a6
refuse 2 "ldm.base is empty" a6 "$program" study "$tiny" --run a6 --set ldm.base=

# ---- weights: a classifier trained in seconds, then damaged by letters of equal length
train() {
    "$program" train-classifier "$tiny" --class bacteria --out "$1" --set classifier.epochs=1 \
        --set classifier.batch=8 "${@:2}"
}
train trained >out 2>err || fail "training: $(tail -1 err)"
weights=trained/model.safetensors
LC_ALL=C sed 's/"Mixed_5b\.branch1x1\.bn\.bias"/"Mixed_5b.branch1x1.bn.bios"/' "$weights" >renamed.safetensors
refuse 3 "Mixed_5b.branch1x1.bn.bias" a7 train a7 --set classifier.weights=renamed.safetensors
tensor='"Conv2d_2a_3x3\.conv\.weight":{[^}]*"shape":\[[0-9]*,'
LC_ALL=C sed "s/\($tensor\)\([0-9]*\),3,3\]/\13,\2,3]/" "$weights" >turned.safetensors
cmp -s "$weights" turned.safetensors && fail "no shape was turned"
refuse 3 "Conv2d_2a_3x3.conv.weight" a8 train a8 --set classifier.weights=turned.safetensors
head -c 5000 "$weights" >cut.safetensors
refuse 3 "cut.safetensors" a9 train a9 --set classifier.weights=cut.safetensors
refuse 3 "absent.safetensors" a9 train a9 --set classifier.weights=absent.safetensors
refuse 3 "absent" a10 "$program" train-ldm "$tiny" --out a10 --set ldm.base=absent

# ---- predictions
printf 'id,patient,label,score\na,p,0,0.5\nb,q,1,1.5\n' >scores.csv
refuse 3 "scores.csv:3" m.json "$program" evaluate --predictions scores.csv --out m.json

# ---- a full disk: a small one where that is allowed, else a limit on the size of files
if unshare -Urm true 2>/dev/null; then
    mkdir disk
    full() { # KIB COMMAND...: with ./disk of so many KiB
        local size=$1
        shift
        unshare -Urm sh -c 'mount -t tmpfs -o size='"$size"'k none disk && "$@"; rc=$?; find disk >left; exit $rc' sh "$@"
    }
else
    mkdir disk
    full() {
        (ulimit -f 4 && "${@:2}")
        local rc=$?
        find disk >left
        return $rc
    }
fi
refuse 5 "disk/set" "" full 40 "$program" prepare folders good --out disk/set --size 96
grep -q "disk/set" left && fail "a full disk left $(grep disk/set left | head -3)"
rm -rf disk/*
refuse 5 "disk/w.safetensors" "" full 64 "$program" weights convert "$weights" disk/w.safetensors --dtype f32
grep -q "disk/w" left && fail "a full disk left $(cat left)"
rm -rf disk/*
refuse 5 "disk/run" "" full 100 "$program" train-classifier "$tiny" --class virus --out disk/run
grep -qE "model.safetensors|history.json|\.partial" left && fail "a full disk left $(cat left)"
rm -rf disk/*
refuse 5 "disk/run" "" full 100 "$program" study "$tiny" --run disk/run
grep -qE "metrics.json|report.html|\.partial" left && fail "a full disk left $(cat left)"

# ---- a disk that a whole run would not fit on is refused before there is a folder
rm -rf disk/*
refuse 5 "GiB for what will be written: films" a11 "$program" study "$tiny" --run a11 \
    --set synthesis.count=100000000 --set data.size=2048
refuse 5 "GiB for what will be written: films" a11 "$program" synthesize "$tiny" --model "$SOURCE_DIR/samples/base" \
    --class virus --out a11 --set synthesis.count=100000000 --set data.size=2048

[ $failed = 0 ] && echo "all refused as they should be"
exit $failed
