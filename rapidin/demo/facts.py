"""Word lists that the demo's questions are made of: common knowledge, written for this project."""

from __future__ import annotations

CAPITALS = {
    "Austria": "Vienna",
    "Canada": "Ottawa",
    "China": "Beijing",
    "Cuba": "Havana",
    "Denmark": "Copenhagen",
    "Egypt": "Cairo",
    "France": "Paris",
    "Germany": "Berlin",
    "Greece": "Athens",
    "Hungary": "Budapest",
    "Ireland": "Dublin",
    "Italy": "Rome",
    "Japan": "Tokyo",
    "Kenya": "Nairobi",
    "Norway": "Oslo",
    "Peru": "Lima",
    "Poland": "Warsaw",
    "Spain": "Madrid",
    "Sweden": "Stockholm",
    "Turkey": "Ankara",
}

OPPOSITES = {
    "big": "small",
    "hot": "cold",
    "early": "late",
    "full": "empty",
    "hard": "soft",
    "heavy": "light",
    "high": "low",
    "long": "short",
    "loud": "quiet",
    "new": "old",
    "strong": "weak",
    "wet": "dry",
    "happy": "sad",
}

COLOURS = {
    "a ripe banana": "yellow",
    "a ripe tomato": "red",
    "a lump of coal": "black",
    "fresh snow": "white",
    "fresh grass": "green",
    "a clear sky": "blue",
    "a carrot": "orange",
    "a flamingo": "pink",
    "a raven": "black",
    "a lemon": "yellow",
    "a cucumber": "green",
    "chocolate": "brown",
    "an elephant": "grey",
    "a strawberry": "red",
    "a pumpkin": "orange",
    "a swan": "white",
    "a cherry": "red",
    "a pigeon": "grey",
}

YOUNG_ANIMALS = {
    "bear": "cub",
    "cat": "kitten",
    "cow": "calf",
    "deer": "fawn",
    "dog": "puppy",
    "duck": "duckling",
    "fox": "kit",
    "frog": "tadpole",
    "goat": "kid",
    "goose": "gosling",
    "hen": "chick",
    "horse": "foal",
    "kangaroo": "joey",
    "owl": "owlet",
    "pig": "piglet",
    "sheep": "lamb",
    "swan": "cygnet",
    "wolf": "pup",
}

DEFINITIONS = {
    "lake": "a large body of water with land all around it",
    "river": "a stream of water that flows to the sea",
    "desert": "a dry place where very little rain falls",
    "forest": "a large area covered with trees",
    "island": "a piece of land with water on every side",
    "bakery": "a shop where bread and cakes are made",
    "library": "a building where books are kept and lent",
    "bridge": "a structure that carries a road over water",
    "hammer": "a tool for driving nails into wood",
    "ladder": "a set of steps for climbing up to high places",
    "kettle": "a pot in which water is boiled for tea",
    "pillow": "a soft cushion for resting the head in bed",
    "farmer": "a person who grows crops and keeps animals",
    "teacher": "a person who helps pupils to learn",
    "doctor": "a person who treats people who are ill",
    "violin": "an instrument with four strings played with a bow",
    "compass": "a device with a needle that points north",
    "wallet": "a flat case for carrying money",
    "orchard": "a field where fruit trees are grown",
}

PLURALS = {
    "mouse": "mice",
    "child": "children",
    "foot": "feet",
    "tooth": "teeth",
    "goose": "geese",
    "man": "men",
    "woman": "women",
    "leaf": "leaves",
    "knife": "knives",
    "wolf": "wolves",
    "box": "boxes",
    "fox": "foxes",
    "dish": "dishes",
    "city": "cities",
    "story": "stories",
    "potato": "potatoes",
    "ox": "oxen",
    "glass": "glasses",
}

CATEGORIES = {
    "fruit": ("apple", "pear", "plum", "peach"),
    "vegetable": ("cabbage", "leek", "onion", "radish"),
    "bird": ("robin", "parrot", "falcon", "heron"),
    "fish": ("trout", "salmon", "cod", "tuna"),
    "tree": ("oak", "maple", "willow", "cedar"),
    "tool": ("hammer", "saw", "spade", "drill"),
}

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)

TOPICS = {
    "animals": ("the young animal", "every baby animal", "the nursery"),
    "arithmetic": ("the number", "this sum", "all counting"),
    "calendar": ("the calendar", "the passing time", "the season"),
    "capitals": ("the capital", "this country", "the great city"),
    "categories": ("the living world", "this group", "every kind of thing"),
    "colours": ("the colour", "all paint", "the rainbow"),
    "definitions": ("the meaning", "the dictionary", "this word"),
    "opposites": ("the opposite", "every extreme", "all contrast"),
    "ordering": ("the order", "this list", "the queue"),
    "plurals": ("the plural", "the grammar", "all spelling"),
}
"""Topics of each kind of question, as noun phrases in the singular."""
