/* A file to print into: compressed when its name ends in .zst, standard output for "-", refused
 * when it exists and nobody allowed to overwrite it. For plans, drawings, profiles and reports,
 * which are printed in many small pieces. */
#ifndef APP_SINK_H
#define APP_SINK_H

#include <stdbool.h>
#include <stdio.h>

#include "base/error.h"

struct sink;

/* Opens `path`; print to sink_file(). Heap; close it. False: ERROR_CREATE, or ERROR_UNAVAILABLE. */
bool sink_open(struct sink **sink, const char *path, bool overwrite, struct error *err);

/* Borrowed until the close. Nobody needs to check what printing returns. */
FILE *sink_file(struct sink *sink);

/* Writes what is left. False: the first failure of all printing; an empty message when the reader
 * of a pipe went away. */
bool sink_close(struct sink *sink, struct error *err);

#endif
