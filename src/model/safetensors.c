typedef int placeholder_safetensors;
