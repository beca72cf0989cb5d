/* What ref.c and ref_score.c share: the scalar product of linear, and score for the table of ops.
 * Private to the ref backend. */
#ifndef BACKEND_REF_H
#define BACKEND_REF_H

#include "backend/backend.h"

/* sum over k of x[k] * w[out][k], k ascending, in double. `x`: [weight.n_in] */
double ref_dot(const float *x, struct weight weight, int32_t out);

void ref_score(struct backend *backend, const struct score_args *args);

#endif
