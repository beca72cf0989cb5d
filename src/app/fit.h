/* Measured iterations to the figures of a cost profile: a search over base time, bandwidth,
 * attention rate and the table of rates that makes cost_iteration_ns agree best with what was
 * measured. Relative errors count, so that short iterations matter as much as long ones. */
#ifndef APP_FIT_H
#define APP_FIT_H

#include <stdbool.h>
#include <stdint.h>

#include "plan/cost.h"

/* One kind of iteration and what it took. */
struct fit_sample {
    struct iteration_load load;
    double measured_ns;
    bool is_held_out; /* not shown to the search: what the errors are told of */
};

/* |predicted / measured - 1| */
struct fit_errors {
    int32_t n;
    double median, most;
};

/* Fills base_ns, bytes_per_s, attention_flops_per_s and the rates (at powers of two up to the most
 * rows of a sample); other fields stay. At least one sample is not held out. */
void fit_profile(struct cost_profile *profile, const struct cost_shape *shape,
                 const struct fit_sample *samples, int32_t n_samples);

/* Errors of the samples that are held out, or of the others. */
struct fit_errors fit_errors(const struct cost_model *model, const struct fit_sample *samples,
                             int32_t n_samples, bool held_out);

#endif
