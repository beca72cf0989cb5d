# Without -m and DLLM_BATCH_MODEL the model beside the executable is used, in both layouts.
unset DLLM_BATCH_MODEL
mkdir -p prefix/bin prefix/share/dllm-batch/models source/build source/data/models lonely/a/b
cp -L "$(command -v dllm-batch)" prefix/bin
for place in source/build lonely/a/b; do cp prefix/bin/dllm-batch $place; done
ln -s "$PWD/models/good" prefix/share/dllm-batch/models/tiny-llada
ln -s "$PWD/models/good" source/data/models/tiny-llada
prefix/bin/dllm-batch inspect | head -n 1
(cd source && build/dllm-batch inspect | head -n 1)
lonely/a/b/dllm-batch inspect
