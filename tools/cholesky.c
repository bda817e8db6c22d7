#include "cholesky.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tiles.h"

/* Columns per panel; rows per chunk of work, and per step of the inverse; columns of the inverse per chunk. All are multiples of
 * four, as tile_subtract sums by fours. */
enum { PANEL = 64, CHUNK = 64, STRIPE = 128 };

struct factor {
    const struct lanes *lanes;
    double *a, *panel;      /* panel [PANEL][n]: the panel's columns as rows */
    size_t  n, at, width;   /* panel begins at column `at` */
};

/* The panel's own square, unblocked. */
static bool factor_square(double *a, size_t n, size_t at, size_t width)
{
    for (size_t j = at; j < at + width; j++) {
        double d = a[j * n + j];
        for (size_t k = at; k < j; k++)
            d -= a[j * n + k] * a[j * n + k];
        if (!(d > 0) || !isfinite(d))
            return false;
        d = sqrt(d);
        a[j * n + j] = d;
        for (size_t i = j + 1; i < at + width; i++) {
            double s = a[i * n + j];
            for (size_t k = at; k < j; k++)
                s -= a[i * n + k] * a[j * n + k];
            a[i * n + j] = s / d;
        }
    }
    return true;
}

/* Rows below the square: solve against it, in the transposed panel, where neighbours do not wait for each other's sums. */
static void solve_rows(void *arg, size_t index, size_t thread)
{
    struct factor *f = arg;
    size_t n = f->n, from = f->at + f->width + index * CHUNK, rows = n - from < CHUNK ? n - from : CHUNK;
    (void)thread;
    for (size_t j = 0; j < f->width; j++) {
        const double *l = f->a + (f->at + j) * n + f->at;
        double *x = f->panel + j * n + from;
        for (size_t i = 0; i < rows; i++)
            x[i] = f->a[(from + i) * n + f->at + j];
        for (size_t k = 0; k < j; k++)
            for (size_t i = 0; i < rows; i++)
                x[i] -= l[k] * f->panel[k * n + from + i];
        for (size_t i = 0; i < rows; i++)
            f->a[(from + i) * n + f->at + j] = x[i] /= l[j];
    }
}

/* Rows below the panel: the trailing matrix less the panel times its transpose. What this writes above the diagonal, within its
 * chunk, is never read. */
static void update_rows(void *arg, size_t index, size_t thread)
{
    struct factor *f = arg;
    size_t n = f->n, first = f->at + f->width, from = first + index * CHUNK, rows = n - from < CHUNK ? n - from : CHUNK;
    (void)thread;
    double *row = f->a + from * n;
    tile_subtract(f->lanes, row + first, n, row + f->at, n, f->panel + first, n, rows, from + rows - first, f->width);
}

/* In place: a [n][n] symmetric, of which the lower triangle is read, becomes L with a = L L^T (the strict upper triangle is
 * zeroed). False when a pivot is not positive or not finite; `a` is garbage then. QUERN_EMEM goes through err (err->code is
 * QUERN_OK for a bad pivot). */
static bool factor(double *a, size_t n, struct pool *pool, struct quern_error *err)
{
    struct factor f = { .lanes = tiles_begin(), .a = a, .n = n };
    bool ok = true;
    err->code = QUERN_OK;
    if (!(f.panel = mem_take(PANEL, n * sizeof *f.panel, "a panel", err)))
        return false;
    for (f.at = 0; ok && f.at < n; f.at += f.width) {
        f.width = n - f.at < PANEL ? n - f.at : PANEL;
        if (!(ok = factor_square(a, n, f.at, f.width)))
            break;
        size_t chunks = (n - f.at - f.width + CHUNK - 1) / CHUNK;
        pool_run(pool, solve_rows, &f, chunks);
        pool_run(pool, update_rows, &f, chunks);
    }
    free(f.panel);
    for (size_t i = 0; ok && i < n; i++)
        for (size_t j = i + 1; j < n; j++)
            a[i * n + j] = 0;
    return ok;
}

struct inversion {
    const struct lanes *lanes;
    double       *x;
    const double *l;
    size_t        n;
};

/* Columns of the inverse do not depend on each other: a stripe of them, CHUNK rows after CHUNK rows, each less what the rows above
 * give it. */
static void invert_stripe(void *arg, size_t index, size_t thread)
{
    struct inversion *v = arg;
    size_t n = v->n, c = index * STRIPE, width = n - c < STRIPE ? n - c : STRIPE;
    (void)thread;
    for (size_t i = 0; i < n; i++)
        memset(v->x + i * n + c, 0, width * sizeof *v->x);
    for (size_t from = c; from < n; from += CHUNK) {
        size_t rows = n - from < CHUNK ? n - from : CHUNK;
        const double *l = v->l + from * n;
        double *x = v->x + from * n + c;
        tile_subtract(v->lanes, x, n, l + c, n, v->x + c * n + c, n, rows, width, from - c);
        for (size_t i = 0; i < rows; i++) {
            double *row = x + i * n;
            if (from + i < c + width)
                row[from + i - c] = 1;
            tile_subtract(v->lanes, row, n, l + i * n + from, n, x, n, 1, width, i);
            for (size_t j = 0; j < width; j++)
                row[j] /= l[i * n + from + i];
        }
    }
}

/* x [n][n] = L^-1, lower; the strict upper triangle is zeroed. x must not be l. */
static void invert(double *x, const double *l, size_t n, struct pool *pool)
{
    struct inversion v = { tiles_begin(), x, l, n };
    pool_run(pool, invert_stripe, &v, (n + STRIPE - 1) / STRIPE);
}

/* H^-1 = U^T U with U upper means H = R R^T with R = U^-1 upper: the ordinary factor of H with rows and columns in reverse. So U is
 * the reversed inverse of that factor, and H^-1 itself is never formed. */
static void load_reversed(double *a, const float *h, const uint32_t *order, size_t n, double damp)
{
    for (size_t i = 0; i < n; i++) {
        size_t row = order[n - 1 - i];
        bool dead = !(h[row * n + row] > 0);
        for (size_t j = 0; j <= i; j++) {
            size_t col = order[n - 1 - j];
            a[i * n + j] = dead || !(h[col * n + col] > 0) ? 0 : h[row * n + col];
        }
        a[i * n + i] = dead ? 1 : a[i * n + i] + damp;
    }
}

bool cholesky_inverse_upper(float *u, size_t stride, const float *h, const uint32_t *order, size_t n,
                            struct cholesky_damping *damping, struct pool *pool, struct quern_error *err)
{
    double mean = 0, share = damping->first;
    for (size_t i = 0; i < n * n; i++)
        if (!isfinite(h[i]))
            return ERR(err, QUERN_EFORMAT, "the second moments are not finite (row %zu, column %zu)", i / n, i % n);
    for (size_t i = 0; i < n; i++)
        mean += h[i * n + i] / (double)n;
    double *a = mem_take(n, n * sizeof *a, "a factor", err), *x = a ? mem_take(n, n * sizeof *x, "a factor", err) : NULL;
    bool ok = false;
    for (int t = 0; x && !ok && t < damping->tries; t++, share *= 4) {
        load_reversed(a, h, order, n, share * mean);
        damping->used = share;
        ok = factor(a, n, pool, err);
        if (!ok && err->code != QUERN_OK)
            break;
    }
    if (ok) {
        invert(x, a, n, pool);
        for (size_t p = 0; p < n; p++)
            for (size_t q = 0; q < stride; q++)
                u[p * stride + q] = q < p || q >= n ? 0 : (float)x[(n - 1 - p) * n + (n - 1 - q)];
    } else if (x && err->code == QUERN_OK) {
        ERR(err, QUERN_EFORMAT, "the second moments are not positive definite, even with %g of the mean diagonal added",
            damping->used);
    }
    free(a);
    free(x);
    return ok;
}
