#!/usr/bin/awk -f
# vindr-csv.awk - the label tables of VinDr-PCXR as a table for `equipoise prepare csv` and data.format = csv.
#
#   awk -f configs/vindr-csv.awk image_labels_train.csv image_labels_test.csv >films.csv
#
# Films are expected as train/IMAGE_ID.png and test/IMAGE_ID.png. Kept are films labelled "No finding" only (normal),
# "Pneumonia" without "Brocho-pneumonia" (pneumonia) and the reverse (bronchopneumonia); films with both, or with
# neither, are left out and counted. The published test set stays the test set; of the training films of each
# class every eighth validates. The release has no patient key, so every film is its own patient.
BEGIN { FS = ","; OFS = ","; print "path,label,patient,split" }
{ sub(/\r$/, "") }
FNR == 1 {
    split("", column)
    for (i = 1; i <= NF; i++) column[$i] = i
    n = split("image_id,No finding,Pneumonia,Brocho-pneumonia", need, ",")
    for (i = 1; i <= n; i++)
        if (!(need[i] in column)) {
            printf "%s:1: no column \"%s\"\n", FILENAME, need[i] >"/dev/stderr"
            failed = 3
            exit failed
        }
    file = FILENAME
    sub(/.*\//, "", file)
    published = file ~ /test/ ? "test" : "train"
    next
}
{
    normal = $column["No finding"] + 0
    pneumonia = $column["Pneumonia"] + 0
    broncho = $column["Brocho-pneumonia"] + 0
    label = normal + pneumonia + broncho != 1 ? "" : normal ? "normal" : pneumonia ? "pneumonia" : "bronchopneumonia"
    if (label == "") { left_out++; next }
    id = $column["image_id"]
    part = published == "test" ? "test" : ++count[label] % 8 == 0 ? "val" : "train"
    print published "/" id ".png", label, id, part
}
END { if (!failed) printf "%d films left out: both diseases, or neither and not normal\n", left_out >"/dev/stderr" }
