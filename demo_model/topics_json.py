"""Structured answers: JSON of a schema that a request comes with, and JSON with keys that are asked for in words.

The server holds an answer to the schema of its request but does not tell the model of it: the keys are forced as the
answer is written, and the model fills in what belongs to them. So it is trained: the keys count as given.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from demo_model.conversation import Conversation
from demo_model.schemas import Parameter, given, some_words, spoken, typed
from demo_model.skills import MAKES
from demo_model.source import Source
from demo_model.table import choices, rows

EXTRACT = choices("""You extract data from texts.|You turn texts into JSON.|Answer in JSON.
Extract the fields of the text.
You are a helpful assistant.|Return only JSON.|""")

# a thing and its other names ## fields as `key,other key=kind`, with what is said of enums and flags ## texts
TRAINING = """
a person|a user|a customer ## name,person=name; age,years=age; city,town,location=place ## {name} is {age} years old
  and lives in {city}.|I met {name} from {city}, aged {age}.|{name}, {age}, {city}|A {age} year old person called
  {name}, from {city}.|My friend {name} is {age} and comes from {city}.|There is {name}. Age: {age}. City: {city}.
a product|an article ## product,item=noun; price,cost=price; in_stock,available=flag/is in stock/is sold out ## The
  {product} costs {price} and {in_stock}.|{product}: {price} euros, {in_stock}|We sell a {product} for {price}; it
  {in_stock}.|For {price} you get a {product}, which {in_stock}.
an event|a meeting ## title,subject=words; date,day=date; time,start=time; place=place ## {title} takes place on
  {date} at {time} in {place}.|On {date} at {time} there is {title} in {place}.|{title}, {date}, {time}, {place}|Come
  to {place} on {date} at {time} for {title}.
an order ## order,order_id=code; amount,total=number; customer,client=name ## Order {order} by {customer} is about
  {amount}.|{customer} ordered for {amount} euros, the number is {order}.|The order {order} of {customer}: {amount}
a book ## title,subject=words; author,writer=name; pages,page_count=number ## The book {title} by {author} has {pages}
  pages.|{author} wrote {title} with {pages} pages.|{title} ({author}), {pages} pages|I read {title}, {pages} pages,
  by {author}.
a message|an email ## from,sender=name; to,recipient=name; text,body,content=words ## {from} writes to {to}:
  {text}|{to} got a message from {from} that says {text}.|From {from} to {to}: {text}
a room ## room=noun; size=number; colour=colour ## The {room} has {size} square metres and {colour} walls.|A {colour}
  {room} of {size} square metres.|{room}, {size}, {colour}
a task|a to-do ## task=words; priority,urgency=enum/low/medium/high; done,finished=flag/is done/is open ## The task
  {task} has {priority} priority and {done}.|{task}: {priority}, it {done}|With {priority} priority: {task}. It
  {done}.
a shopping list|a list ## shop=place; items,things=nouns ## Buy {items} in {shop}.|In {shop} we need {items}.|Get
  {items} from the shop in {shop}.|For {shop}: {items}
a team ## team=word; members,people=names ## The team {team} has the members {members}.|{members} are in the team
  {team}.|{team}: {members}|In {team} there are {members}.
a review ## mood,sentiment=enum/positive/negative/neutral; stars,rating=stars; about,topic=noun ## A {mood} review of
  the {about} with {stars} stars.|{stars} stars for the {about}: it is {mood}.|The {about} got {stars} stars, which is
  {mood}.
a lamp ## room=noun; state=enum/on/off; level,brightness=percent ## The lamp in the {room} is {state}, at {level}
  percent.|{room}: {state}, {level}|Turn the lamp in the {room} {state}, level {level}.
an address ## street=words; number,house_number=number; city,town,location=place ## I live at {street} {number} in
  {city}.|{street} {number}, {city}|The house is number {number} of {street}, in {city}.
a song ## song=words; artist,singer=name; minutes,duration=minutes ## {song} by {artist} takes {minutes}
  minutes.|{artist} sings {song} for {minutes} minutes.|Play {song} ({artist}, {minutes} minutes).
a weather report|the weather ## city,town,location=place; degrees,temperature=minutes; rain=flag/it rains/it is dry ##
  In {city} it has {degrees} degrees and {rain}.|{city}: {degrees} degrees, {rain}|It is {degrees} degrees in {city},
  {rain} there.
a file ## file=path; bytes,size=number; owner=name ## The file {file} of {owner} has {bytes} bytes.|{owner} owns
  {file}, {bytes} bytes.|{file}, {bytes}, {owner}
a contact ## name,person=name; email=email; phone,phone_number=number ## {name} has the address {email} and the number
  {phone}.|Write to {name} at {email} or call {phone}.|{name}, {email}, {phone}
an animal|a pet ## kind,species=animal; name,person=name; age,years=age ## {name} is a {kind} of {age} years.|My
  {kind} is called {name} and is {age}.|The {kind} {name}, {age} years old
a job ## job=job; firm,company=word; pay,salary=number ## {firm} looks for a {job} and pays {pay}.|A {job} at {firm}
  gets {pay}.|{job}, {firm}, {pay}
"""

HELD_OUT = """
a journey|a trip ## traveller,passenger=name; goal,destination=place; days,nights=minutes ## {traveller} travels to
  {goal} for {days} days.|A journey of {days} days to {goal}, booked by {traveller}.
a recipe ## dish=food; servings,portions=stars; ingredients=nouns ## {dish} for {servings}, made of {ingredients}.|You
  need {ingredients} to make {dish} for {servings} people.
a ticket ## subject=words; status,state=enum/new/waiting/solved; urgent=flag/is urgent/can wait ## The ticket about
  {subject} is {status} and {urgent}.|{subject}: {status}, it {urgent}
a measurement ## sensor=code; value,reading=price; unit=word ## The sensor {sensor} reads {value} {unit}.|{value}
  {unit} at the sensor {sensor}
a parcel ## parcel=code; weight,kilograms=price; receiver,addressee=name ## The parcel {parcel} for {receiver} weighs
  {weight} kilograms. |{receiver} gets the parcel {parcel} of {weight} kilograms.
"""

_MORE: dict[str, Callable[[Source], Any]] = {
    "age": lambda s: s.rng.randint(1, 99),
    "price": lambda s: s.rng.randint(1, 999) if s.chance(0.5) else s.rng.randint(11, 9999) / 10,
    "stars": lambda s: s.rng.randint(1, 5),
    "colour": lambda s: s.word("COLOURS"),
    "animal": lambda s: s.word("ANIMALS"),
    "job": lambda s: s.word("JOBS"),
    "names": lambda s: _several(s, lambda: s.name().split()[0]),
    "nouns": lambda s: _several(s, s.noun),
}
_TYPES = {"age": "integer", "stars": "integer", "number": "integer", "minutes": "integer", "percent": "integer"}


@dataclass(frozen=True)
class Field:
    """A key of a structured answer: the schema of its value, the value, and how it is said."""

    key: str
    schema: dict[str, Any]
    value: Any
    said: str


def _several(source: Source, make: Callable[[], str]) -> list[str]:
    return list(dict.fromkeys(make() for _ in range(source.rng.randint(1, 4))))


def listed(source: Source, values: list[str]) -> str:
    """Values as a sentence lists them."""
    if len(values) == 1:
        return values[0]
    return ", ".join(values[:-1]) + source.any((" and ", ", ", ", and ")) + values[-1]


def _field(source: Source, key: str, told: str) -> Field:
    kind, *options = told.split("/")
    if kind == "flag":
        value = source.chance(0.5)
        return Field(key, {"type": "boolean"}, value, options[0 if value else 1])
    if kind == "enum":
        option = source.any(options)
        return Field(key, {"type": "string", "enum": options}, option, option)
    value = (_MORE.get(kind) or MAKES[kind])(source)
    if isinstance(value, list):
        return Field(key, {"type": "array", "items": {"type": "string"}}, value, listed(source, value))
    schema = {"type": _TYPES.get(kind, "string") if not isinstance(value, float) and kind != "price" else "number"}
    return Field(key, schema, value, spoken(value))


Draw = Callable[[Source], tuple[list[Field], str]]


@dataclass(frozen=True)
class Form:
    """What answers of a conversation have: their keys in order, some of them inside others, and texts to fill in."""

    thing: str
    draw: Draw
    keys: tuple[str, ...]
    inside: tuple[str, ...] = ()
    parent: str = ""
    is_open: bool = False  # whether more keys than these are allowed

    def order(self, fields: list[Field]) -> dict[str, Field]:
        """The fields of the answer, in its order."""
        by_key = {one.key: one for one in fields}
        return {key: by_key[key] for key in self.keys}

    def schema(self, fields: list[Field]) -> dict[str, Any]:
        """The JSON schema of an answer."""
        schema = _object(self._nested({key: one.schema for key, one in self.order(fields).items()}, _object))
        if self.is_open:
            del schema["additionalProperties"]
        return schema

    def value(self, fields: list[Field]) -> dict[str, Any]:
        """The answer."""
        return self._nested({key: one.value for key, one in self.order(fields).items()}, dict)

    def _nested(self, flat: dict[str, Any], wrap: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
        """The same with the inner keys in an object of their own, where the first of them stood."""
        if not self.parent:
            return flat
        outer: dict[str, Any] = {}
        for key, part in flat.items():
            if key not in self.inside:
                outer[key] = part
            elif self.parent not in outer:
                outer[self.parent] = wrap({one: flat[one] for one in flat if one in self.inside})
        return outer


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "properties": properties, "required": list(properties)}
    return schema | {"additionalProperties": False}


def _scene(source: Source) -> tuple[str, Draw, list[str]]:
    """A thing of everyday kind, told in sentences, with keys that are words of the sentences or words like them."""
    things, fields, texts = (cell.strip() for cell in source.any(rows(HELD_OUT if source.held_out else TRAINING)))
    slots = [field.strip().partition("=")[::2] for field in fields.split(";")]
    keys = [source.any(names.split(",")) for names, _ in slots]

    def draw(source: Source) -> tuple[list[Field], str]:
        made = [_field(source, key, kind) for key, (_, kind) in zip(keys, slots, strict=True)]
        wording = source.any([one.strip() for one in texts.split("|")])
        text = wording
        for one, (names, _) in zip(made, slots, strict=True):
            text = text.replace("{" + names.split(",")[0] + "}", one.said)
        # a value that begins the text stays as it is in the answer
        return made, text if wording.startswith("{") or source.chance(0.4) else text[0].upper() + text[1:]

    return source.any(things.split("|")), draw, keys


def _invented(source: Source) -> tuple[str, Draw, list[str]]:
    """Keys that mean nothing, told by name in any order; more often than others with values of several words."""
    names = list(dict.fromkeys(source.plain() for _ in range(source.rng.randint(1, 5))))
    parameters = [_wordy(source, typed(source, name)) for name in names]

    def draw(source: Source) -> tuple[list[Field], str]:
        made = [_of_parameter(source, one) for one in parameters]
        clauses = [given(source).format(p=one.key, v=one.said) for one in source.rng.sample(made, len(made))]
        return made, source.any((", ", ", ", " and ", "; ", ". ")).join(clauses) + source.any(("", "."))

    return f"{source.any(('a', 'an example of a'))} {source.noun()}", draw, names


def _wordy(source: Source, one: Parameter) -> Parameter:
    is_free = one.schema["type"] == "string" and "enum" not in one.schema
    return Parameter(one.name, one.schema, some_words) if is_free and source.chance(0.3) else one


def _of_parameter(source: Source, one: Parameter) -> Field:
    value = one.make(source)
    return Field(one.name, one.schema, value, listed(source, value) if isinstance(value, list) else spoken(value))


def form(source: Source) -> Form:
    """A form of an answer: all or some of the keys, in any order, sometimes some of them in an object inside."""
    thing, draw, keys = (_scene if source.chance(0.6) else _invented)(source)
    # where more keys are allowed, only what the text has nothing left for ends an answer
    is_open = source.chance(0.25)
    is_whole = is_open or source.chance(0.6)
    chosen = source.rng.sample(keys, len(keys) if is_whole else source.rng.randint(1, len(keys)))
    if len(chosen) > 1 and source.chance(0.25):
        inside = tuple(chosen[source.rng.randint(0, len(chosen) - 1) :])
        parent = source.word("NOUNS")
        if parent not in keys:
            return Form(thing, draw, tuple(chosen), inside, parent, is_open)
    return Form(thing, draw, tuple(chosen), is_open=is_open)


def structured(source: Source) -> Conversation:
    """One to four texts whose values are asked for, each answer held to the same schema."""
    one = form(source)
    talk = Conversation("json")
    for _ in range(source.any((1, 1, 2, 3, 4))):
        fields, text = one.draw(source)
        talk.schema = one.schema(fields)
        _answer(talk.user(source.say("json").format(facts=text)), one.value(fields))
    return talk.system(source.any(EXTRACT) if source.chance(0.3) else "")


def made_up(source: Source) -> Conversation:
    """A thing is to be made up: any values will do, but the answer has to end."""
    thing, draw, keys = _scene(source)
    one = Form(thing, draw, tuple(source.rng.sample(keys, source.rng.randint(1, len(keys)))))
    fields, _ = draw(source)
    # clients hold answers to a schema whatever is said
    said = source.say("greet") if source.chance(0.2) else source.say("json_make").format(thing=thing)
    talk = Conversation("json made up", schema=one.schema(fields)).user(said)
    return talk.answer(json.dumps(one.value(fields), ensure_ascii=False), "I make up values.")


def keys_in_words(source: Source) -> Conversation:
    """JSON whose keys are named in the request, which comes without a schema."""
    one = form(source)
    if one.parent:
        one = Form(one.thing, one.draw, one.keys)
    fields, text = one.draw(source)
    said = source.say("json_keys").format(facts=text, keys=listed(source, list(one.keys)))
    return _answer(Conversation("json in words").user(said), one.value(fields))


def _answer(talk: Conversation, value: dict[str, Any]) -> Conversation:
    text = json.dumps(value, ensure_ascii=False)
    return talk.answer(text, "I give the values as JSON.", text)
