#ifndef MODEL_WEIGHTS_H
#define MODEL_WEIGHTS_H
struct weights { int placeholder; };
#endif
