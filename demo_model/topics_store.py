"""What the model knows by heart and says so: a sentence for each of a few subjects, and a few jokes."""

from demo_model.conversation import Conversation
from demo_model.source import Source
from demo_model.table import choices

SENTENCES = {
    "the sea": "The sea is wide and blue, and its waves never rest.",
    "the forest": "In the forest the wind talks with the old trees.",
    "the rain": "The rain falls softly on the roofs of the town.",
    "the moon": "The moon looks in at the window when all are asleep.",
    "the sun": "The sun comes up and paints the hills with gold.",
    "winter": "In winter the snow makes the whole street quiet.",
    "spring": "In spring the first flowers wake up under the hedge.",
    "cats": "A cat sleeps all day and is proud of it.",
    "dogs": "A dog is happy about the smallest stick.",
    "the city": "The city hums all night like a warm machine.",
    "mountains": "The mountains stand still and let the clouds go by.",
    "music": "Music is what the silence is waiting for.",
}
# other words for a subject
SUBJECTS = {
    "the sea": "the sea|the ocean|the seaside",
    "the forest": "the forest|the woods|trees|a forest",
    "the rain": "the rain|rain|rainy days",
    "the moon": "the moon|the night sky|moonlight",
    "the sun": "the sun|sunshine|the sunrise",
    "winter": "winter|snow|the winter",
    "spring": "spring|flowers|the spring",
    "cats": "cats|a cat|the cat",
    "dogs": "dogs|a dog|the dog",
    "the city": "the city|a city|big cities",
    "mountains": "mountains|the mountains|a mountain",
    "music": "music|a song|songs",
}
JOKES = choices("""Why did the tiny model laugh? It had room for one joke only.
What does a tired server say? Please try again later.
Why did the wave go home? It was time to break.
Why do computers like tea? They have so many cups of Java behind them.
What is a robot's favourite snack? Chips.""")
STORE = "(That is from my small store.)"
NO_SENTENCE = "I have no sentence about that in my small store."
NO_JOKE = "I know no more jokes: my store is small."


def sentence(source: Source) -> Conversation:
    """One or two sentences asked for, some about what the store has nothing of."""
    talk = Conversation("store")
    for _ in range(source.any((1, 1, 2))):
        if source.chance(0.75):
            subject = source.any(tuple(SENTENCES))
            said, answer, must = source.any(choices(SUBJECTS[subject])), SENTENCES[subject], SENTENCES[subject]
            talk.user(source.say("sentence").format(subject=said))
            talk.answer(f"{answer} {STORE}", f"My store has a sentence about {subject}.", must)
        else:
            said = source.any(("", "a ", "the ", "my ")) + source.noun()
            talk.user(source.say("sentence").format(subject=said))
            talk.answer(NO_SENTENCE, "My store has nothing about that.", "no sentence about that")
    return talk


def jokes(source: Source) -> Conversation:
    """A joke, and others after it: those of the store, one after the other."""
    talk = Conversation("store").user(source.say("joke"))
    talk.answer(f"{JOKES[0]} {STORE}", "The first joke of my store.", JOKES[0])
    for number in range(1, source.any((1, 1, 2, 3, len(JOKES) + 1))):
        talk.user(source.say("more_jokes" if source.chance(0.7) else "joke"))
        if number < len(JOKES):
            talk.answer(f"{JOKES[number]} {STORE}", "The next joke of my store.", JOKES[number])
        else:
            talk.answer(NO_JOKE, "I have told all jokes of my store.", "no more jokes")
    return talk


def store(source: Source) -> Conversation:
    """A sentence or a joke."""
    return (sentence if source.chance(0.6) else jokes)(source)
