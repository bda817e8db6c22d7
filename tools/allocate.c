#include "allocate.h"

#include <float.h>

size_t allocate_bytes(const struct allocate_item *items, size_t count)
{
    size_t sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += items[i].choices[items[i].chosen].bytes;
    return sum;
}

double allocate_loss(const struct allocate_item *items, size_t count)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += items[i].choices[items[i].chosen].loss;
    return sum;
}

/* Everything's best choice at this price per byte; of equals the smaller one. */
static size_t choose_at(struct allocate_item *items, size_t count, double price)
{
    for (size_t i = 0; i < count; i++) {
        double best = DBL_MAX;
        for (size_t c = 0; c < items[i].count; c++) {
            const struct allocate_choice *choice = &items[i].choices[c];
            double cost = choice->loss + price * (double)choice->bytes;
            if (cost < best || (cost <= best && choice->bytes < items[i].choices[items[i].chosen].bytes))
                best = cost, items[i].chosen = c;
        }
    }
    return allocate_bytes(items, count);
}

static void choose_smallest(struct allocate_item *items, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        items[i].chosen = 0;
        for (size_t c = 1; c < items[i].count; c++) {
            const struct allocate_choice *best = &items[i].choices[items[i].chosen], *choice = &items[i].choices[c];
            if (choice->bytes < best->bytes || (choice->bytes == best->bytes && choice->loss < best->loss))
                items[i].chosen = c;
        }
    }
}

/* The step up that saves the most loss per byte within what is left; false when there is none. */
static bool fill_one(struct allocate_item *items, size_t count, size_t left)
{
    double best = 0;
    size_t item = 0, step = 0;
    for (size_t i = 0; i < count; i++) {
        const struct allocate_choice *now = &items[i].choices[items[i].chosen];
        for (size_t c = 0; c < items[i].count; c++) {
            const struct allocate_choice *next = &items[i].choices[c];
            if (next->loss >= now->loss || (next->bytes > now->bytes && next->bytes - now->bytes > left))
                continue;
            double bytes = next->bytes > now->bytes ? (double)(next->bytes - now->bytes) : 0.5;
            if ((now->loss - next->loss) / bytes > best)
                best = (now->loss - next->loss) / bytes, item = i, step = c;
        }
    }
    if (best > 0)
        items[item].chosen = step;
    return best > 0;
}

bool allocate(struct allocate_item *items, size_t count, size_t budget, size_t *least, struct quern_error *err)
{
    double low = 0, high = 1e-18;
    choose_smallest(items, count);
    size_t smallest = allocate_bytes(items, count);
    if (least)
        *least = smallest;
    if (smallest > budget)
        return ERR(err, QUERN_EUSAGE, "the smallest types take %zu bytes, %zu are allowed", smallest, budget);
    while (high < 1e12 && choose_at(items, count, high) > budget)
        low = high, high *= 4;
    for (int i = 0; i < 200 && high > low; i++) {
        double middle = low + (high - low) / 2;
        if (middle <= low || middle >= high)
            break;
        if (choose_at(items, count, middle) > budget)
            low = middle;
        else
            high = middle;
    }
    if (choose_at(items, count, high) > budget)
        choose_smallest(items, count);
    while (fill_one(items, count, budget - allocate_bytes(items, count)))
        ;
    return true;
}
