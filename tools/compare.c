#include "compare.h"

#include <stdio.h>
#include <unistd.h>

#include "cli.h"
#include "source.h"

bool compare_needed(const struct quantize_job *job, const struct receipt *r)
{
    return job->matrix || job->refine || r->tuned.tokens;
}

/* The model, plainly rounded, at `path`. Its journal entries would mix with the result's: it has none and begins anew after a
 * kill. */
static bool round_plainly(const struct quantize_job *job, const char *path, struct quern_error *err)
{
    struct quantize_job plain = *job;
    plain.matrix = NULL, plain.matrix_path = NULL, plain.refine = NULL, plain.notes = NULL, plain.journal = NULL;
    plain.show = NULL;
    return quantize_write(&plain, path, true, err);
}

/* Two means over the same tokens; their difference is known no better than either, so a hair's breadth refuses nothing. */
static bool judge(const struct eval_result *ours, const struct eval_result *plain, bool force, struct quern_error *err)
{
    printf("plain rounding to the same types: KL %.5f\n", plain->kl_mean);
    if (!(ours->kl_mean > plain->kl_mean + ours->kl_error))
        return true;
    ERR(err, QUERN_EQUALITY, "the result is worse than plain rounding to the same types: KL %.6g +- %.2g, plain %.6g "
        "(--force writes it all the same)", ours->kl_mean, ours->kl_error, plain->kl_mean);
    if (force)
        cli_warn("%s", err->text);
    return force;
}

bool compare_with_plain(const struct receipt *r, const struct quantize_job *job, const struct quern_model *source,
                        const char *scratch, bool force, const struct receipt_options *o, struct quern_error *err)
{
    struct eval_result result;
    struct quern_model *model = NULL;
    bool ok = round_plainly(job, scratch, err) && (model = source_model(scratch, pool_threads(o->pool), err)) &&
              receipt_measure(&result, model, source, o, err);
    quern_close_model(model);
    unlink(scratch);
    return ok && judge(&r->result, &result, force, err);
}
