#!/bin/bash
# test_single_stages.sh - the stages of a study as commands of their own: train-ldm, train-autoencoder, train-classifier,
# synthesize, img2img. $1: the program.
source "$SOURCE_DIR/tests/shell.sh"
program=$1
tiny=$SOURCE_DIR/configs/tiny.ini
cd "$work" || exit 1
must() { "$@" >out 2>err || fail "$*: exit code $?: $(tail -1 err)"; }
refuse() { # CODE WORDS COMMAND...
    "${@:3}" >out 2>err
    local got=$?
    [ $got = "$1" ] || fail "${*:3}: exit code $got, expected $1"
    grep '^equipoise: ' err | grep -qF -- "$2" || fail "${*:3}: no \"$2\" in $(tail -1 err)"
}
sums() { (cd "$1" && find . -type f ! -name '*.jsonl' | sort | xargs sha256sum); }

# ---- a diffusion model on all classes; a second call finds it complete
must "$program" train-ldm "$tiny" --out ldm --set ldm.prior_share=0
[ "$(cat out)" = ldm/model ] || fail "train-ldm says $(cat out)"
[ -s ldm/model/unet/diffusion_pytorch_model.safetensors ] && [ -s ldm/history.json ] || fail "train-ldm left no model"
sums ldm >before
must "$program" train-ldm "$tiny" --out ldm --set ldm.prior_share=0
sums ldm | cmp - before || fail "a complete model was changed"
refuse 2 "ldm.steps = 5, was 24" "$program" train-ldm "$tiny" --out ldm --set ldm.prior_share=0 --set ldm.steps=5
refuse 2 "base model = " "$program" train-ldm "$tiny" --out ldm --set ldm.prior_share=0 --set ldm.base=ldm/model
refuse 2 'no film of class "fungus", expected one of: bacteria, normal, virus' "$program" train-ldm "$tiny" \
    --out none --class fungus
mkdir letters && echo hello >letters/one.txt
refuse 2 "holds other files" "$program" train-ldm "$tiny" --out letters

# ---- fine-tuning it further, on one class: what it gives is a base like any other
must "$program" train-ldm "$tiny" --out virus --class virus --set ldm.base=ldm/model --set ldm.init=base \
    --set ldm.steps=3 --set ldm.warmup=0

# ---- an autoencoder: a model's own, and from what that gives, the decoder alone
coder() {
    "$program" train-autoencoder "$tiny" --set autoencoder.steps=3 --set autoencoder.batch=4 "$@"
}
must coder --out coder --set autoencoder.base=ldm/model
[ "$(cat out)" = coder/model ] || fail "train-autoencoder says $(cat out)"
cmp coder/model/config.json ldm/model/vae/config.json || fail "train-autoencoder changed the config"
must coder --out decoder --set autoencoder.base=coder/model --set autoencoder.frozen=encoder.
refuse 2 "autoencoder.base is empty" coder --out none
refuse 2 "multiple of 8" coder --out none --set autoencoder.base=coder/model --set data.size=81
refuse 3 "nowhere" coder --out none --set autoencoder.base=nowhere
[ ! -e none ] || fail "what cannot work left a folder"

# ---- films
must "$program" synthesize "$tiny" --model virus/model --class virus --out made --set synthesis.count=3
[ "$(find made/films/images -name '*.png' | wc -l)" = 3 ] || fail "synthesize made other than 3 films"
[ "$(wc -l <made/films/manifest.csv)" = 4 ] || fail "synthesize wrote no manifest of 3 films"
mv made/stage.json . # whatever these films were made from
refuse 2 'made/films: is there without made/stage.json' "$program" synthesize "$tiny" --model virus/model --class virus \
    --out made --set synthesis.count=4
mv stage.json made/
must "$program" synthesize "$tiny" --model virus/model --class virus --out text --set synthesis.count=2 \
    --set synthesis.mode=text-to-image
[ ! -e text/prepare ] || fail "text-to-image prepared films that it does not need"
refuse 2 'class "fungus" has no prompts' "$program" synthesize "$tiny" --model virus/model --class fungus --out none

image=$(find made/prepare/data/images -name '*.png' | sort | head -1)
img2img() {
    "$program" img2img --model virus/model --image "$image" --prompt "chest x-ray, viral pneumonia" --steps 4 "$@"
}
must img2img --out a.png --seed 3
must img2img --out b.png --seed 3
must img2img --out c.png --seed 4
cmp a.png b.png || fail "the same seed, another film"
cmp -s a.png c.png && fail "another seed, the same film"
grep -aq Synthetic a.png || fail "a synthetic film that does not say so"
refuse 2 "a.png: is there" img2img --out a.png --seed 4
cmp a.png b.png || fail "a film was overwritten"
must img2img --out a.png --seed 4 --force
cmp a.png c.png || fail "--force did not overwrite"

# ---- LoRA: beside the model, or merged into it, the same film
must "$program" train-ldm "$tiny" --class virus --out low --set ldm.base="$PWD/virus/model" --set ldm.init=base \
    --set ldm.lora_rank=2 --set ldm.steps=3 --set ldm.warmup=0 --set ldm.learning_rate=0.01
low=low/pytorch_lora_weights.safetensors
must "$program" weights merge-lora virus/model $low merged --scale 0.5
must img2img --out with.png --seed 3 --lora $low:0.5
must img2img --out merged.png --seed 3 --model merged
must img2img --out none.png --seed 3 --lora $low:0
pixels() { tail -c "+$(grep -abo IDAT "$1" | head -1 | cut -d: -f1)" "$1" | sha256sum; } # without the notes before
[ "$(pixels with.png)" = "$(pixels merged.png)" ] || fail "a LoRA beside the model is another than in it"
[ "$(pixels none.png)" = "$(pixels b.png)" ] || fail "a LoRA of scale 0 changed the film"
[ "$(pixels with.png)" != "$(pixels b.png)" ] || fail "a LoRA changed nothing"
grep -aq "LoRA.$(sha256sum <$low | cut -d' ' -f1):0.5" with.png || fail "the film does not say with what LoRA it was made"
refuse 3 "is a directory, expected a safetensors file" img2img --out d.png --lora virus/model
refuse 2 "ldm.train_text_encoder = 1, expected one of them" "$program" train-ldm "$tiny" --out none \
    --set ldm.lora_rank=2 --set ldm.train_text_encoder=1

refuse 2 "no whole step" img2img --out d.png --strength 0.1
refuse 2 "multiples of 8" img2img --out d.png --size 81
refuse 3 "nowhere" "$program" img2img --model nowhere --image "$image" --prompt x --out d.png
refuse 2 "one of the two" img2img --out d.png --size 80 --width 96 --height 80
refuse 2 "width is missing" img2img --out d.png --height 80
[ ! -e d.png ] || fail "a refused film was written"
for key in Synthetic Prompt NegativePrompt Seed Mode Strength Guidance Steps Eta Spacing SourceSHA WeightsSHA; do
    grep -aq "$key" a.png || fail "the film does not say its $key"
done
txt2img() {
    "$program" txt2img --model virus/model --prompt "chest x-ray" --steps 3 "$@"
}
must txt2img --out e.png --width 96 --height 64
grep -aq Strength e.png && fail "a film from text says a strength"
must txt2img --out f.png --width 96 --height 64 --rgb
[ "$(od -An -tu1 -j16 -N10 e.png | xargs)" = "0 0 0 96 0 0 0 64 8 0" ] || fail "e.png is not 96 x 64 grey"
[ "$(od -An -tu1 -j16 -N10 f.png | xargs)" = "0 0 0 96 0 0 0 64 8 2" ] || fail "f.png is not 96 x 64 colour"
must txt2img --out h.png --width 88 --height 72 # latents of 11 x 9, which the UNet does not divide by 2
[ "$(od -An -tu1 -j16 -N8 h.png | xargs)" = "0 0 0 88 0 0 0 72" ] || fail "h.png is not 88 x 72"
must "$program" train-ldm "$tiny" --out odd --class virus --set data.size=88 --set ldm.steps=3 --set ldm.warmup=0
must img2img --out i.png --model odd/model --size 88
refuse 2 "size is missing" txt2img --out g.png
header='{"noise":{"dtype":"F32","shape":[1,4,8,8],"data_offsets":[0,1024]}}'
{ printf "\\x$(printf %02x ${#header})\\0\\0\\0\\0\\0\\0\\0%s" "$header"; head -c 1024 /dev/zero | tr '\0' '\377'; } >nan.safetensors
refuse 3 'nan.safetensors: tensor "noise": element 0 is ' txt2img --out g.png --size 64 --noise nan.safetensors
refuse 3 "no use for it" txt2img --out g.png --size 64 --noise virus/model/unet/diffusion_pytorch_model.safetensors
[ ! -e g.png ] || fail "a refused film was written"

# ---- pretraining without disease labels, on a table whose patients have several films
{
    echo path,label,patient
    i=0
    for f in "$SOURCE_DIR"/samples/films/normal/*.jpeg; do
        i=$((i + 1))
        [ $i -le 36 ] || break
        echo "normal/$(basename "$f"),$([ $((i % 2)) = 0 ] && echo x || echo y),p$((i / 4))"
    done
} >pool.csv
pretext() {
    "$program" train-classifier "$tiny" --out trunk --set data.source=pool.csv --set classifier.target=patient \
        --set data.train_share=0.9 --set data.val_share=0.05 "$@"
}
must pretext
[ -s trunk/model.safetensors ] && [ -s trunk/history.json ] || fail "train-classifier left no model"
refuse 2 "expected none with classifier.target = patient" pretext --class virus
refuse 2 "--class is missing" "$program" train-classifier "$tiny" --out none
# the epoch that is kept: the first best of the column that classifier.monitor names (3: loss, 4: balanced accuracy)
kept() { # COLUMN SIGN
    tr -d '[] ' <trunk/history.json | awk -F, -v c="$1" -v s="$2" '
        $1 ~ /^[0-9]+$/ && (best == "" || s * $c < s * least) { least = $c; best = $1 } END { print best }'
}
epoch_of() { head -c 2000 "$1" | grep -ao '"epoch":"[0-9]*"' | tr -dc 0-9; }
[ "$(epoch_of trunk/model.safetensors)" = "$(kept 3 1)" ] || fail "kept epoch $(epoch_of trunk/model.safetensors), best loss $(kept 3 1)"
rm -r trunk
must pretext --set classifier.monitor=balanced_accuracy --set classifier.epochs=6
[ "$(epoch_of trunk/model.safetensors)" = "$(kept 4 -1)" ] || fail "kept epoch $(epoch_of trunk/model.safetensors), best balanced accuracy $(kept 4 -1)"
# what it learned is where a classifier of two classes can start
must "$program" train-classifier "$tiny" --class virus --out two --set classifier.weights=trunk/model.safetensors

[ $failed = 0 ] && echo "every stage alone"
exit $failed
