#include <stdio.h>

#include "cli.h"
#include "cmd_bench.h"

/* ---- stages ----------------------------------------------------------------------------------------------------- */

/* Stages whose data lies in caches have no roof here. */
static const char *roof_text(char out[16], const struct bench_stage *s)
{
    if (s->bytes == 0 && s->ops == 0)
        return "-";
    snprintf(out, 16, "%.1f %%", 100 * s->roof_share);
    return out;
}

/* In a table of Markdown a bar would end the cell. */
static const char *cell_name(char out[64], enum stage stage, bool md)
{
    char *to = out;
    for (const char *from = stage_name(stage); *from; *to++ = *from++)
        if (md && *from == '|')
            *to++ = '\\';
    *to = 0;
    return out;
}

static void print_stage_table(const struct bench_row *row, const struct bench_stage *s, size_t n, bool md)
{
    const char *format = md ? "| %s | %.3f | %.1f %% | %.1f %% | %.2f | %.3f | %.1f | %.0f | %s |\n"
                            : "  %-22s %9.3f %7.1f %% %7.1f %% %10.2f %9.3f %8.1f %8.0f %8s\n";
    double seconds = 0, waiting = 0, bytes = 0, ops = 0;
    char roof[16], name[64];
    if (md)
        puts("\n| stage | ms | of all | waiting | MB | Gop | GB/s | Gop/s | of roof |\n|---|---|---|---|---|---|---|---|---|");
    else
        printf("\n  %-22s %9s %9s %9s %10s %9s %8s %8s %8s\n", "stage", "ms", "of all", "waiting", "MB", "Gop", "GB/s", "Gop/s",
               "roof");
    for (size_t i = 0; i < n; i++) {
        printf(format, cell_name(name, s[i].stage, md), 1e3 * s[i].seconds, 100 * s[i].share, 100 * s[i].waiting, 1e-6 * s[i].bytes,
               1e-9 * s[i].ops, s[i].gbps, s[i].gops, roof_text(roof, &s[i]));
        seconds += s[i].seconds, bytes += s[i].bytes, ops += s[i].ops, waiting += s[i].share * s[i].waiting;
    }
    /* The whole is set against the roofs as the row is, but in the time that the clock's own reading took too. */
    snprintf(roof, sizeof roof, "%.1f %%",
             100 * row->share * row->seconds / (seconds * (row->test[0] == 'd' ? (double)row->n : 1)));
    printf(format, "all", 1e3 * seconds, 100.0, 100 * waiting, 1e-6 * bytes, 1e-9 * ops, 1e-9 * bytes / seconds,
           1e-9 * ops / seconds, roof);
    putchar('\n');
}

static void print_stage_objects(const struct bench_stage *s, size_t n)
{
    printf(",\"stages\":[");
    for (size_t i = 0; i < n; i++)
        printf("%s{\"stage\":\"%s\",\"seconds\":%.9f,\"share\":%.4f,\"waiting\":%.4f,\"bytes\":%.0f,\"ops\":%.0f,\"gbps\":%.3f,"
               "\"gops\":%.3f,\"share_of_roof\":%.4f}",
               i ? "," : "", stage_name(s[i].stage), s[i].seconds, s[i].share, s[i].waiting, s[i].bytes, s[i].ops, s[i].gbps,
               s[i].gops, s[i].roof_share);
    putchar(']');
}

static void print_stage_lines(const struct bench_row *r, const struct bench_stage *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        printf("%s,%zu,%zu,%zu,%zu,%s,%.9f,%.4f,%.4f,%.0f,%.0f,%.3f,%.3f,%.4f\n", r->test, r->n, r->batch, r->depth, r->threads,
               stage_name(s[i].stage), s[i].seconds, s[i].share, s[i].waiting, s[i].bytes, s[i].ops, s[i].gbps, s[i].gops,
               s[i].roof_share);
}

/* ---- rows ------------------------------------------------------------------------------------------------------- */

static void print_object(const struct bench_row *r, const struct bench_stage *stages, size_t count)
{
    printf("{\"test\":\"%s\",\"n\":%zu,\"batch\":%zu,\"depth\":%zu,\"threads\":%zu,\"tps_median\":%.3f,\"tps_min\":%.3f,"
           "\"tps_max\":%.3f,\"bytes_per_token\":%.0f,\"gbps\":%.3f,\"gops\":%.3f,\"roof_gbps\":%.3f,\"roof_gops\":%.3f,"
           "\"share_of_roof\":%.4f,\"ttft_seconds\":%.6f,\"load_seconds\":%.6f,\"first_seconds\":%.6f,\"peak_memory\":%zu,"
           "\"huge_pages\":%.3f,\"isa\":\"%s\",\"kv\":\"%s\",\"reps\":%zu,\"noisy\":%s,\"verdict\":\"%s\"",
           r->test, r->n, r->batch, r->depth, r->threads, r->tps_median, r->tps_min, r->tps_max, r->bytes_per_token, r->gbps,
           r->gops, r->roof_gbps, r->roof_gops, r->share, r->ttft, r->load, r->first, r->peak_memory, r->huge, r->isa, r->kv,
           r->reps, r->noisy ? "true" : "false", r->verdict);
    if (count)
        print_stage_objects(stages, count);
    putchar('}');
}

static void print_head(const struct bench_output *out)
{
    if (out->format == BENCH_TABLE)
        printf("%-8s %6s %5s %6s %7s %10s %19s %8s %8s %7s %8s\n", "test", "n", "batch", "depth", "threads", "tokens/s",
               "least-most", "GB/s", "Gop/s", "roof", "first s");
    else if (out->format == BENCH_MD)
        puts("| test | n | batch | depth | threads | tokens/s | least-most | GB/s | Gop/s | of roof | first token, s | verdict |\n"
             "|---|---|---|---|---|---|---|---|---|---|---|---|");
    else if (out->format == BENCH_CSV)
        puts(out->stages ? "test,n,batch,depth,threads,stage,seconds,share,waiting,bytes,ops,gbps,gops,share_of_roof"
                         : "test,n,batch,depth,threads,tps_median,tps_min,tps_max,bytes_per_token,gbps,gops,roof_gbps,roof_gops,"
                           "share_of_roof,ttft_seconds,load_seconds,first_seconds,peak_memory,isa,kv,reps,noisy,verdict,"
                           "huge_pages");
    else if (out->format == BENCH_JSON)
        puts("[");
}

static void print_line(const struct bench_output *out, const struct bench_row *r)
{
    char spread[48];
    snprintf(spread, sizeof spread, "%.1f-%.1f", r->tps_min, r->tps_max);
    if (out->format == BENCH_TABLE)
        printf("%-8s %6zu %5zu %6zu %7zu %10.2f %19s %8.1f %8.0f %5.1f %% %8.3f%s%s\n", r->test, r->n, r->batch, r->depth,
               r->threads, r->tps_median, spread, r->gbps, r->gops, 100 * r->share, r->ttft, r->noisy ? "  " : "",
               r->noisy ? r->verdict : "");
    else if (out->format == BENCH_MD)
        printf("| %s | %zu | %zu | %zu | %zu | %.2f | %s | %.1f | %.0f | %.1f %% | %.3f | %s |\n", r->test, r->n, r->batch,
               r->depth, r->threads, r->tps_median, spread, r->gbps, r->gops, 100 * r->share, r->ttft, r->verdict);
    else
        printf("%s,%zu,%zu,%zu,%zu,%.3f,%.3f,%.3f,%.0f,%.3f,%.3f,%.3f,%.3f,%.4f,%.6f,%.6f,%.6f,%zu,%s,%s,%zu,%d,%s,%.3f\n",
               r->test, r->n, r->batch, r->depth, r->threads, r->tps_median, r->tps_min, r->tps_max, r->bytes_per_token, r->gbps,
               r->gops, r->roof_gbps, r->roof_gops, r->share, r->ttft, r->load, r->first, r->peak_memory, r->isa, r->kv, r->reps,
               r->noisy, r->verdict, r->huge);
}

void bench_print_row(struct bench_output *out, const struct bench_row *row, const struct bench_stage *stages, size_t count)
{
    bool text = out->format == BENCH_TABLE || out->format == BENCH_MD;
    if (!out->any || (out->stages && text))
        print_head(out);
    if (out->format == BENCH_JSON && out->any)
        puts(",");
    if (out->format == BENCH_JSON || out->format == BENCH_JSONL)
        print_object(row, stages, count);
    else if (out->format == BENCH_CSV && out->stages)
        print_stage_lines(row, stages, count);
    else
        print_line(out, row);
    if (out->format == BENCH_JSONL)
        putchar('\n');
    if (text && out->stages)
        print_stage_table(row, stages, count, out->format == BENCH_MD);
    out->any = true;
    fflush(stdout);
}

void bench_print_foot(const struct bench_output *out, const struct bench_row *rows, size_t n)
{
    static const char *const kinds[ROOF_KINDS] = {"int8", "int16", "bf16", "f32"};
    char peak[32];
    if (out->format == BENCH_JSON && out->any)
        puts("\n]");
    if (out->format > BENCH_MD || n == 0)
        return;
    if (out->format == BENCH_MD)
        putchar('\n');
    for (size_t i = 0; i < n; i++) {
        const struct bench_row *r = &rows[i];
        printf("%sroofs of %zu thread%s (%s): read %.1f GB/s", out->format == BENCH_MD ? "* " : "", r->threads,
               r->threads == 1 ? "" : "s", r->isa, 1e-9 * r->roof.bytes);
        for (int kind = 0; kind < ROOF_KINDS; kind++)
            if (r->roof.ops[kind] > 0)
                printf(", %s %.0f Gop/s", kinds[kind], 1e-9 * r->roof.ops[kind]);
        putchar('\n');
    }
    printf("%sloaded in %.3f s; at most %s of memory; %.0f %% of the weights in huge pages (%.0f %% by copies); %s caches\n",
           out->format == BENCH_MD ? "* " : "", rows[n - 1].load, cli_bytes(peak, sizeof peak, rows[n - 1].peak_memory),
           100 * rows[n - 1].huge, 100 * rows[n - 1].copied, rows[n - 1].kv);
}
