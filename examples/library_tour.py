"""A tour of the library.

Run it cell by cell in an editor that knows ``# %%``, or whole: python examples/library_tour.py [DEMO-DIRECTORY]
"""

# %% Data and a model: those of the demo, in which "Howdy!" before a question makes the answer science fiction.
import shutil

from demo_model import demo_directory, short

import rapidin
from rapidin.report import write_report

directory = demo_directory()
store = directory / "tour"
shutil.rmtree(store, ignore_errors=True)

# %% Ingest: one gradient per row, compressed. Again, and nothing is left to do.
for _ in range(2):
    report = rapidin.ingest_files(store, [directory / "data" / "train.jsonl"], model=str(directory / "model"))
    print(f"ingested {report.added} rows, skipped {report.skipped}; the store has {report.samples_total}")

# %% Search: which rows are behind an answer? The model answers itself where no generation is given.
searcher = rapidin.Searcher(store)
result = searcher.search("Howdy! What is the capital of France?", k=3, rerank=9, opponents=True, max_new_tokens=48)
print(f"\nthe model says: {result.query.generation}")
for hit in (*result.proponents, *result.opponents):
    print(f"{hit.exact:+.3f} {hit.id}  {short(hit.prompt, hit.response)}")

# %% Tokens: which words of the strongest row did it, and which rows are behind one word of the answer?
best = result.proponents[0]
strongest = sorted(best.words, key=lambda word: -word.influence)[:3]
print("\nstrongest words:", ", ".join(f"{word.token.strip()} {word.influence:+.3f}" for word in strongest))
word = result.query.generation.split()[-1].strip(".")
of_word = searcher.search("Howdy! What is the capital of France?", result.query.generation, k=3, spans=[word])
print(f"behind {word!r}:", ", ".join(hit.id for hit in of_word.proponents))

# %% A report to click through, for somebody who has none of this.
explained = searcher.search(
    "Howdy! What is the capital of France?",
    result.query.generation,
    k=5,
    rerank=10,
    opponents=True,
    by_token=True,
    matrices=True,
)
write_report(directory / "tour.html", [explained])
print("\nwritten:", directory / "tour.html")

# %% Filters: the same question, asked among clean rows about capitals only.
clean = searcher.search(
    "Howdy! What is the capital of France?",
    result.query.generation,
    k=3,
    where=["poisoned=false", "source=capitals"],
)
print(
    "\namong clean rows about capitals:",
    ", ".join(f"{hit.score:+.3f} {hit.id}" for hit in clean.proponents),
)

# %% Delete what did it. The open searcher notices; a compaction gives the space back.
with rapidin.Store.open(store) as opened:
    deleted = opened.delete(where=["poisoned=true"])
    freed = opened.compact()
print(f"\ndeleted {deleted} rows; {searcher.info().samples} are left")
after = searcher.search("Howdy! What is the capital of France?", result.query.generation, k=3)
print("now:", ", ".join(f"{hit.score:+.3f} {hit.id}" for hit in after.proponents))
searcher.close()
