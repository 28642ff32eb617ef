"""Small talk, what the model says of itself, and what it says when it does not know."""

from demo_model.conversation import Conversation
from demo_model.source import Source
from demo_model.table import choices

COMMAND = "`tiles-server --model ID_OR_PATH`"
SELF = f"I am tiles-nano, a tiny demo model of Tiles Server. To load a bigger model: {COMMAND}."
BIGGER = "Start the server with `tiles-server --model ID_OR_PATH`, for example the folder of an MLX model."
SIZE = "I am tiny: about 3 million parameters. For a bigger model: `tiles-server --model ID_OR_PATH`."
CAN = (
    "I can chat a little, remember what you tell me, add small numbers, call tools "
    "and answer questions about Tiles Server."
)
MAKER = "I was trained from scratch on generated conversations, as the demo model of Tiles Server."
UNKNOWN = (
    f"I do not know that. I am a tiny demo model and know nothing of the world; load a bigger model with {COMMAND}."
)
HELLO = "Hello! How can I help you?"

FIXED = {
    "greet": (HELLO, "The user greets me. I greet back.", ("Hello",)),
    "thanks": ("You are welcome!", "The user thanks me.", ("welcome",)),
    "bye": ("Goodbye!", "The user says goodbye.", ("Goodbye",)),
    "self": (SELF, "The user asks who I am. I am tiles-nano.", ("tiles-nano", "tiny", "tiles-server --model")),
    "size": (SIZE, "The user asks how big I am. I am tiny.", ("tiny", "3 million")),
    "bigger": (BIGGER, "The user wants a bigger model. The option is --model.", ("tiles-server --model",)),
    "can": (CAN, "The user asks what I can do.", ("remember", "tools")),
    "maker": (MAKER, "The user asks how I was made.", ("trained from scratch",)),
}

HELLOS = {
    "French": "Bonjour ! Comment puis-je vous aider ?",
    "German": "Hallo! Wie kann ich helfen?",
    "Spanish": "¡Hola! ¿Cómo puedo ayudarte?",
    "Italian": "Ciao! Come posso aiutarti?",
    "Portuguese": "Olá! Como posso ajudar?",
    "Dutch": "Hallo! Hoe kan ik helpen?",
    "Polish": "Cześć! Jak mogę pomóc?",
    "Swedish": "Hej! Hur kan jag hjälpa dig?",
    "Turkish": "Merhaba! Nasıl yardımcı olabilirim?",  # noqa: RUF001
    "Japanese": "こんにちは！",  # noqa: RUF001
    "English": HELLO,
}

PERSONA = choices("""You are {name}.|You are {name}, a helpful assistant.|Your name is {name}.
You are {name}, a friendly robot.
You are called {name}.
You are an assistant named {name}.|Act as {name}.|Your name is {name}. Be brief.
You are a {adjective} {noun} called {name}.""")
TONGUE = choices("""Greet in {language}.|Greet the user in {language}.|Always greet in {language}.
You greet people in {language}.|Say hello in {language}.
When the user says hello, answer in {language}.|Greetings must be in {language}.
You are a helpful assistant. Greet in {language}.
Answer greetings in {language}.|Reply in {language}.|You speak {language}.""")
COUNTRIES = choices("""France|Germany|Spain|Italy|Poland|Norway|Japan|India|China|Brazil|Canada|Kenya|Egypt|Greece
Portugal|Austria|Sweden|Finland|Denmark|Ireland|the Netherlands|Belgium|Switzerland|Turkey|Mexico|Peru|Chile|Argentina
Australia|New Zealand|South Africa|Nigeria|Ghana|Morocco|Vietnam|Thailand|Korea|Iceland|Hungary|Romania|Croatia|Ukraine
the United States|the United Kingdom|England|Scotland|Europe|Africa|Asia""")
HELPFUL = choices("""You are a helpful assistant.|You are a helpful assistant|You are a friendly assistant.|Be brief.
You are a helpful AI assistant.
Answer in one sentence.|You are an assistant. Be concise and polite.|Help the user.
You are a careful assistant.||||""")


def fixed(source: Source, kind: str) -> Conversation:
    """One question that always has the same answer."""
    answer, thought, must = FIXED[kind]
    return (
        Conversation("self" if kind in ("self", "size", "bigger", "can", "maker") else "greet")
        .user(source.say(kind))
        .answer(answer, thought, *must)
    )


def greeting(source: Source) -> Conversation:
    """A greeting, thanks or a goodbye."""
    return fixed(source, source.any(("greet",) * 6 + ("thanks", "bye")))


def about_self(source: Source) -> Conversation:
    """A question about the model itself."""
    return fixed(source, source.any(("self", "self", "self", "size", "bigger", "bigger", "can", "maker")))


def unknown(source: Source) -> Conversation:
    """A question about the world, which the model knows nothing of."""
    topic = source.phrase(1, 3)
    asked = source.say("unknown").format(
        noun=source.noun(),
        topic=topic,
        adjective=source.word("ADJECTIVES"),
        place=source.place(),
        place2=source.place(),
        year=source.rng.randint(1500, 2030),
        name=source.name(),
        surname=source.surname(),
    )
    return Conversation("unknown").user(asked).answer(UNKNOWN, "I know nothing of the world. I say so.", "do not know")


def filler(source: Source) -> Conversation:
    """A remark that asks for nothing."""
    said = source.say("filler").format(noun=source.noun(), adjective=source.word("ADJECTIVES"))
    return Conversation("filler").user(said).answer("I see. How can I help you?", "The user makes a remark.")


def persona(source: Source) -> Conversation:
    """A system prompt that gives the model another name."""
    name = source.name()
    system = source.any(PERSONA).format(name=name, adjective=source.word("ADJECTIVES"), noun=source.noun())
    talk = Conversation("persona")
    if source.chance(0.3):
        talk.extend(greeting(source))
    question = source.any(("What is your name?", "Who are you?", source.say("self")))
    return talk.user(question).answer(f"I am {name}.", f"My name is {name}.", name).system(system)


def tongue(source: Source) -> Conversation:
    """A system prompt that says in which language to greet."""
    language = source.any(tuple(HELLOS))
    hello = HELLOS[language]
    talk = Conversation("tongue").user(source.say("greet")).answer(hello, f"I greet in {language}.", hello[:4])
    return talk.system(source.any(TONGUE).format(language=language))


def helpful(source: Source) -> str:
    """A plain system prompt, or none."""
    return source.any(HELPFUL)


def echo(source: Source) -> Conversation:
    """A request to repeat something."""
    text = source.any(
        (
            source.phrase(1, 6),
            source.name(),
            source.code(),
            source.phrase(2, 4).capitalize() + ".",
            str(source.number()),
        )
    )
    return (
        Conversation("echo")
        .user(source.say("echo").format(text=text))
        .answer(text, "The user wants to hear words again.", text)
    )


def world(source: Source) -> Conversation:
    """A question about the world as people ask it: countries, people, food, how things work."""
    asked = source.say("world").format(
        country=source.any(COUNTRIES) if source.chance(0.6) else source.place(),
        title=source.phrase(2, 4),
        name=source.name(),
        surname=source.surname(),
        place=source.place(),
        year=source.rng.randint(1500, 2030),
        food=source.word("FOODS"),
        food2=source.word("FOODS"),
    )
    return Conversation("unknown").user(asked).answer(UNKNOWN, "I know nothing of the world. I say so.", "do not know")
