/* score, whose definition has a file of its own, for the table of ops in ref.c. Private to the ref
 * backend. */
#ifndef BACKEND_REF_H
#define BACKEND_REF_H

#include "backend/backend.h"

/* Full logits never exist: tiles of the vocabulary, in as many passes as a row's settings need. */
void ref_score(struct backend *backend, const struct score_args *args);

#endif
