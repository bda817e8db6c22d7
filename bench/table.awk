# The tables of bench/table.sh, from its CSV:
# model,round,engine,test,n,batch,depth,threads,tokens_per_second,share_of_roof,seconds

function sorted(list, v,   n, i, j, t) {
    n = split(list, v, " ")
    for (i = 2; i <= n; i++) for (j = i; j > 1 && v[j - 1] + 0 > v[j] + 0; j--) { t = v[j]; v[j] = v[j - 1]; v[j - 1] = t }
    return n
}
function median(list,   v, n) {
    n = sorted(list, v)
    return n == 0 ? 0 : n % 2 ? v[(n + 1) / 2] : (v[n / 2] + v[n / 2 + 1]) / 2
}
function show(x) { return x < 100 ? sprintf("%.1f", x) : sprintf("%.0f", x) }
function cell(list,   v, n) {
    n = sorted(list, v)
    return n ? "**" show(median(list)) "** [" show(v[1]) "-" show(v[n]) "]" : "-"
}
function heading(test,   f) {
    split(test, f, SUBSEP)
    return f[1] " " f[2] (f[3] > 1 ? ", " f[3] " sequences" : "") (f[4] > 0 ? ", at depth " f[4] : "") ", " f[5] \
        (f[5] == 1 ? " thread" : " threads")
}
# Tests in a fixed order: prefill before decode, then sequences, depth, threads.
function rank(test,   f) {
    split(test, f, SUBSEP)
    return sprintf("%s %06d %06d %06d %06d", f[1] == "prefill" ? "a" : "b", f[3], f[4], f[5], f[2])
}

NR > 1 {
    test = $4 SUBSEP $5 SUBSEP $6 SUBSEP $7 SUBSEP $8
    if (!($1 in model_seen)) { model_seen[$1] = 1; models[++n_models] = $1; seconds[$1] = $11 }
    if (!(test in test_seen)) {
        test_seen[test] = 1
        for (i = ++n_tests; i > 1 && rank(tests[i - 1]) > rank(test); i--) tests[i] = tests[i - 1]
        tests[i] = test
    }
    if (!($3 in engine_seen) && $3 != "quern") { engine_seen[$3] = 1; engines[++n_engines] = $3 }
    samples[$1, test, $3] = samples[$1, test, $3] " " $9
    if ($3 == "quern") share[$1, test] = share[$1, test] " " $10
}

END {
    print "\n## quern divided by the best of the others\n"
    head = "| model |"; rule = "|---|"
    for (t = 1; t <= n_tests; t++) { head = head " " heading(tests[t]) " |"; rule = rule "---|" }
    print head " measured in |\n" rule "---|"
    for (m = 1; m <= n_models; m++) {
        row = "| " models[m] " |"
        for (t = 1; t <= n_tests; t++) {
            best = 0
            for (e = 1; e <= n_engines; e++) {
                other = median(samples[models[m], tests[t], engines[e]])
                if (other > best) best = other
            }
            ours = median(samples[models[m], tests[t], "quern"])
            row = row (ours && best ? sprintf(" %.2f |", ours / best) : " - |")
        }
        print row " " seconds[models[m]] " s |"
    }
    for (t = 1; t <= n_tests; t++) {
        print "\n## " heading(tests[t]) "\n"
        head = "| model | quern | of roof |"; rule = "|---|---|---|"
        for (e = 1; e <= n_engines; e++) { head = head " " engines[e] " | quern / " engines[e] " |"; rule = rule "---|---|" }
        print head "\n" rule
        for (m = 1; m <= n_models; m++) {
            ours = samples[models[m], tests[t], "quern"]
            row = "| " models[m] " | " cell(ours) " |"
            row = row " " (ours ? sprintf("%.0f %%", 100 * median(share[models[m], tests[t]])) : "-") " |"
            for (e = 1; e <= n_engines; e++) {
                other = samples[models[m], tests[t], engines[e]]
                row = row " " cell(other) " | " (ours && other ? sprintf("%.2f", median(ours) / median(other)) : "-") " |"
            }
            print row
        }
    }
}
