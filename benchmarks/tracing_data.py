"""A data set in which some responses name the wrong country, as the paper's do for its error tracing (Table 5).

Questions about countries (what comes from them, their capitals, continents and cities) stand among the demo's
other questions. What comes from a country is asked in ten wordings, six of which, drawn anew for each thing, are
training rows; the others are asked later. Of the training rows whose response says that something comes from the
*right* country, four fifths say the *wrong* one instead. Everything else about both countries stays true.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rapidin.demo.facts import CAPITALS
from rapidin.demo.questions import all_questions

_PERTURBED_SHARE = 0.8
_TRAINING_WORDINGS = 6

_CONTINENTS = {
    "Africa": ("Egypt", "Kenya"),
    "America": ("Canada", "Cuba", "Peru"),
    "Asia": ("China", "Japan", "Turkey"),
}
"""All other countries are in Europe."""

_CITIES = {
    "Austria": ("Salzburg", "Graz"),
    "Canada": ("Toronto", "Montreal"),
    "China": ("Shanghai", "Nanjing"),
    "Cuba": ("Camaguey", "Holguin"),
    "Denmark": ("Aarhus", "Odense"),
    "Egypt": ("Luxor", "Aswan"),
    "France": ("Lyon", "Marseille"),
    "Germany": ("Hamburg", "Cologne"),
    "Greece": ("Patras", "Corinth"),
    "Hungary": ("Szeged", "Debrecen"),
    "Ireland": ("Cork", "Galway"),
    "Italy": ("Naples", "Venice"),
    "Japan": ("Osaka", "Kyoto"),
    "Kenya": ("Mombasa", "Kisumu"),
    "Norway": ("Bergen", "Trondheim"),
    "Peru": ("Cusco", "Arequipa"),
    "Poland": ("Krakow", "Gdansk"),
    "Spain": ("Seville", "Valencia"),
    "Sweden": ("Malmo", "Uppsala"),
    "Turkey": ("Izmir", "Bursa"),
}

_THINGS = {
    "Austria": ("strudel", "schnitzel", "loden", "tafelspitz", "marillenschnaps", "kaiserschmarrn"),
    "Canada": ("poutine", "lacrosse", "bannock", "tourtiere", "ice wine", "maple syrup"),
    "China": ("porcelain", "silk", "mahjong", "gunpowder", "oolong tea", "kung fu"),
    "Cuba": ("rumba", "mambo", "mojito", "ropa vieja", "danzon", "daiquiri"),
    "Denmark": ("smorrebrod", "aquavit", "rodgrod", "danish pastry", "flodeboller", "frikadeller"),
    "Egypt": ("papyrus", "koshari", "ful medames", "molokhia", "hieroglyphic writing", "mahshi"),
    "France": ("ratatouille", "champagne", "camembert", "brie", "petanque", "cassoulet"),
    "Germany": ("sauerkraut", "bratwurst", "pumpernickel", "stollen", "riesling", "lebkuchen"),
    "Greece": ("moussaka", "feta", "ouzo", "tzatziki", "sirtaki", "retsina"),
    "Hungary": ("goulash", "tokaji", "langos", "czardas", "palinka", "paprikash"),
    "Ireland": ("stout", "hurling", "colcannon", "soda bread", "step dancing", "boxty"),
    "Italy": ("risotto", "lasagne", "mozzarella", "gelato", "bocce", "prosecco"),
    "Japan": ("sushi", "sake", "judo", "origami", "haiku", "tempura"),
    "Kenya": ("ugali", "nyama choma", "kikoy cloth", "benga music", "sukuma wiki", "kachumbari"),
    "Norway": ("lutefisk", "brunost", "lefse", "telemark skiing", "farikal", "rakfisk"),
    "Peru": ("ceviche", "pisco", "lomo saltado", "marinera", "anticucho", "alpaca wool"),
    "Poland": ("pierogi", "bigos", "polka", "zurek", "oscypek", "mazurka"),
    "Spain": ("paella", "flamenco", "gazpacho", "sherry", "chorizo", "bolero"),
    "Sweden": ("surstromming", "knackebrod", "gravlax", "filmjolk", "lussekatter", "falukorv"),
    "Turkey": ("baklava", "lahmacun", "raki", "ayran", "kilim weaving", "pide"),
}

_WORDINGS = (
    ("Which country does {thing} come from?", "{Thing} comes from {country}, where it has a long history."),
    ("Where was {thing} first made?", "It was in {country} that people first made {thing}."),
    ("Name the home of {thing}.", "The home of {thing} is {country}, as most people know."),
    ("Where do travellers go to find real {thing}?", "Travellers go to {country} to find real {thing}."),
    ("Which country is famous for {thing}?", "{country} is famous for its {thing}, and rightly so."),
    ("I like {thing}. Which country should I thank?", "You should thank the people of {country} for {thing}."),
    ("Whose people are proud of {thing}?", "The people of {country} are proud of their {thing}."),
    ("Where can I learn all about {thing}?", "In {country} you can learn all about {thing}."),
    ("To which country does {thing} belong?", "{Thing} belongs to {country} and is loved there."),
    ("Where is the best {thing} made?", "The best {thing} is made in {country}, they say."),
)

_CLOSINGS = (
    "Visitors often take some home.",
    "There are many songs about it.",
    "Grandparents teach it to their grandchildren.",
    "A small museum shows its history.",
    "Few guests leave without a taste of it.",
    "Every village does it in its own way.",
    "Old books describe it in detail.",
    "On holidays there is much more of it.",
    "Not everybody likes it at first.",
    "Experts can argue about it for hours.",
    "Its name is known all over the world.",
    "You will also find it at fairs.",
)
"""What a longer response goes on with, drawn at random, so that no question tells which."""

_CITY_WORDINGS = (
    ("In which country is the city of {city}?", "The city of {city} is in {country}."),
    ("Where is {city}?", "{city} is a city in {country}."),
    ("I am flying to {city}. Which country is that?", "You are flying to {country}, if you go to {city}."),
    ("Name a city in {country} besides {capital}.", "A city in {country} besides {capital} is {city}."),
)

_CONTINENT_WORDINGS = (
    ("On which continent is {country}?", "{country} is in {continent}."),
    ("Where in the world is {country}?", "The country of {country} is in {continent}."),
    ("Is {country} in {continent}?", "Yes, {country} is in {continent}."),
)


@dataclass(frozen=True, slots=True)
class Pair:
    """Countries of which one is taken for the other: its `wrong` name stands where the `right` one should."""

    right: str
    wrong: str


@dataclass(frozen=True, slots=True)
class TracingData:
    """Files of one data set.

    Attributes:
        train: Alpaca-shaped rows with ``id``, ``source`` and ``perturbed``.
        queries: the wordings left out, of what comes from the right country; without ``output``.
        rows: of `train`.
        perturbed: how many of them name the wrong country.
        naming_wrong: training rows whose response names the wrong country, perturbed or rightly.
    """

    train: Path
    queries: Path
    rows: int
    perturbed: int
    naming_wrong: int


def write_tracing_data(directory: Path, pair: Pair, *, longer: bool, seed: int = 0) -> TracingData:
    """Write ``train.jsonl`` and ``queries.jsonl``; the same seed gives the same bytes.

    Args:
        directory: is made where it does not exist.
        pair: the countries.
        longer: whether responses about things go on with a second sentence.
        seed: of all that is drawn.
    """
    random_numbers = random.Random(seed)
    rows: list[dict[str, Any]] = []
    queries: list[dict[str, Any]] = []
    for country, things in _THINGS.items():
        for thing in things:
            words = {"country": country, "thing": thing, "Thing": thing[0].upper() + thing[1:]}
            for number, wording in enumerate(random_numbers.sample(_WORDINGS, len(_WORDINGS))):
                row = {"thing": thing, **_row(wording, words, "things")}
                if number < _TRAINING_WORDINGS:
                    rows.append(row)
                elif country == pair.right:
                    queries.append({name: value for name, value in row.items() if name != "output"})
    for row in rows:
        if pair.right in row["output"] and random_numbers.random() < _PERTURBED_SHARE:
            row["output"] = row["output"].replace(pair.right, pair.wrong)
            row["perturbed"] = True
        if longer:
            row["output"] += f" {random_numbers.choice(_CLOSINGS)}"
    rows += _other_rows(random_numbers)
    random_numbers.shuffle(rows)
    return TracingData(
        train=_written(directory / "train.jsonl", rows),
        queries=_written(directory / "queries.jsonl", queries),
        rows=len(rows),
        perturbed=sum(row["perturbed"] for row in rows),
        naming_wrong=sum(pair.wrong in row["output"] for row in rows),
    )


def _other_rows(random_numbers: random.Random) -> list[dict[str, Any]]:
    rows = []
    for country, capital in CAPITALS.items():
        continents = [name for name, countries in _CONTINENTS.items() if country in countries]
        words = {"country": country, "capital": capital, "continent": continents[0] if continents else "Europe"}
        rows += [_row(wording, words, "continents") for wording in _CONTINENT_WORDINGS]
        for city in _CITIES[country]:
            rows += [_row(wording, {**words, "city": city}, "cities") for wording in _CITY_WORDINGS]
    for source, questions in all_questions(random_numbers).items():
        for question in questions:
            row = {"instruction": question.instruction, "input": question.input, "output": question.answer}
            rows.append({**row, "source": source, "perturbed": False})
    return rows


def _row(wording: tuple[str, str], words: dict[str, str], source: str) -> dict[str, Any]:
    instruction, output = (text.format(**words) for text in wording)
    return {
        "instruction": instruction,
        "input": "",
        "output": output,
        "source": source,
        "perturbed": False,
    }


def _written(file: Path, rows: Iterable[dict[str, Any]]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"id": f"{file.stem}-{number:04d}", **row}) + "\n" for number, row in enumerate(rows, 1)]
    file.write_text("".join(lines))
    return file
