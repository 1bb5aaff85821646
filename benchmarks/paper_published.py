"""Figures that the paper publishes (Lin et al. 2024, arXiv 2405.11724), to stand beside ours."""

BACKDOOR = {
    "random": ".116 / .297, .089 / .496, .088 / .499",
    "embedding": ".485 / .667, .542 / .805, .608 / .846",
    "bm25": ".090 / .090, .078 / .414, .109 / .527",
    "influence-lissa": ".960 / .983, .954 / .980, .940 / .973",
    "tracin": ".960 / .983, .965 / .984, .947 / .976",
    "tracin-ln": "1 / 1, .999 / .999, .990 / .995",
    "rapidin": ".993 / .992, .997 / .998, .989 / .994; full: .920 / .969, .715 / .881, .513 / .816",
}
"""Table 4: auPRC / auROC at the top 5, 100 and 1000; Llama-2-7B with QLoRA, K = 2^16."""

TRACING = {"whole": ".68, .72, .58, .47", "words": ".82, .80, .70, .61"}
"""Table 5: precision in the top 5, 10, 25 and 50."""

TIMES = "4.02 h of caching, 0.027 h a query; TracIn 1.77 h a query"
"""Table 2: Alpaca-52K, Llama-2-7B with QLoRA, one H100."""
