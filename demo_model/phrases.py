"""How things are said: phrasings for training and, apart from them, for the evaluation."""

_TRAINING = {
    "greet": """Hello|Hi|Hey|Hello!|Hi!|hello|hi|hey|hi there|Hello there|Hey there!|Good morning|Good evening
Hello, how are you?
Hi, how are you?|Good morning!|good afternoon|Greetings|Hiya|hello!|hi!|Hello.|Yo|Hey, how is it going?
How are you?|how are you
Hi there!|Hello friend|Good day|Hello, nice to meet you|Say hello|Please greet me|Hello world|hey!
Hello, anyone there?|test
Hi, can you help me?|Hello, can you help me?|I need some help|can you help me|Are you there?|Good evening!
Hello again""",
    "thanks": """Thanks|Thank you|Thank you!|thanks!|Thanks a lot|Great, thanks|thx|Thank you very much
Perfect, thank you|Cool, thanks|That was helpful|Good job|Well done""",
    "bye": """Bye|Goodbye|bye!|See you|See you later|Good night|Goodbye!|That is all, bye|I have to go
Talk to you later""",
    "self": """Who are you?|What are you?|Tell me about yourself|What model are you?|Which model is this?|who are you
Introduce yourself
What is your name?|What model am I talking to?|Are you an AI?|Describe yourself|what are you
Can you introduce yourself?
Please introduce yourself|Tell me who you are|What kind of model are you?|Which model are you?
what's your name?|Are you a chatbot?
What is tiles-nano?|Who am I talking to?|Hi, who are you?|Hello, what are you?|Are you ChatGPT?
Say who you are|What LLM is this?""",
    "size": """How big are you?|How many parameters do you have?|Are you a large model?|How large are you?
Are you big?
What size are you?
how many parameters|Are you small?|How tiny are you?|What is your size?|How many weights do you have?""",
    "bigger": """How do I load a bigger model?|How can I use a better model?|How do I run another model?
Can I load a different model?
How do I switch to a real model?|I want a bigger model|how to load a larger model|How do I use my own model?
Which command loads a larger model?
How do I start the server with another model?|I need a smarter model|How can I replace you?
Show me how to load a bigger model
How do I serve a different model?|What do I do to get a better model?|load a bigger model
How do I change the model?""",
    "can": """What can you do?|What are you good at?|What can you help me with?|help|Help|What are your abilities?
How can you help me?
What are you able to do?|Tell me what you can do|what can you do|What do you do?|What are your skills?
Which things can you do?""",
    "maker": """Who made you?|Who trained you?|How were you made?|Who built you?|Where do you come from?
How were you trained?|Who created you?
Which company made you?|How did you learn?|What data were you trained on?""",
    "unknown": """What is the capital of {noun}?|Who invented the {noun}?|Tell me about {noun}s|Explain {topic}
What is {topic}?|Why is the {noun} {adjective}?
Write a poem about a {noun}|Write a story about {topic}|How does a {noun} work?|Who won the {noun} cup?
What do you think about {topic}?
Can you explain {topic}?|Give me a recipe for {noun}|How tall is {place}?|What happened in {year}?
Who is {name} {surname}?|What is the population of {place}?
Write code for {topic}|Summarize the history of {place}|What is the weather in {place}?
Tell me a joke about a {noun}|Who was president in {year}?
When was {place} founded?|How far is {place} from {place2}?|What is the best {noun}?|Is {topic} dangerous?
What is the meaning of {noun}?""",
    "ask_name": """What is my name?|Do you know my name?|What's my name?|Tell me my name|Who am I?
Can you tell me my name?
what is my name|Do you remember my name?
Say my name|What did I say my name was?|Which name did I give you?|How am I called?|Please tell me my name.""",
    "ask": """What is my {key}?|Do you remember my {key}?|What's my {key}?|Tell me my {key}
What did I say my {key} was?
Can you tell me my {key}?
what is my {key}|Which {key} did I mention?|Please tell me my {key}.|My {key}?|Do you know my {key}?
And my {key}?|What was my {key}?|Remind me of my {key}""",
    "ask_of": """What is the {key} of {thing}?|What is the {key} for {thing}?|Tell me the {key} of {thing}
Which {key} does {thing} have?|{thing}'s {key}?
Do you remember the {key} of {thing}?|what is the {key} of {thing}|And the {key} of {thing}?
What was the {key} of {thing}?""",
    "tell_name": """My name is {value}|My name is {value}.|I am {value}|I'm {value}.|Hi, I am {value}.
Hello, my name is {value}
Call me {value}|Call me {value}.
I am called {value}.|You can call me {value}|Hi! My name is {value}.|Hello! I'm {value}
This is {value} speaking.|my name is {value}|{value} is my name.
Please call me {value}.|Hey, I'm {value}|Good morning, I am {value}.|The name is {value}.""",
    "tell": """My {key} is {value}|My {key} is {value}.|my {key} is {value}|Remember that my {key} is {value}.
Note that my {key} is {value}|{value} is my {key}.
Please remember my {key}: {value}|My {key}: {value}|By the way, my {key} is {value}.
I want you to know that my {key} is {value}.|Also, my {key} is {value}.""",
    "tell_of": """The {key} of {thing} is {value}.|The {key} of {thing} is {value}
Remember: the {key} of {thing} is {value}.
the {key} for {thing} is {value}
{thing} has the {key} {value}.|Note that the {key} of {thing} is {value}.|{thing}: {key} {value}""",
    "change": """Actually, my {key} is {value}.|No, my {key} is {value}.
Sorry, I meant that my {key} is {value}.|My {key} is now {value}.
Correction: my {key} is {value}.|I changed my {key} to {value}.""",
    "live": """I live in {value}.|I live in {value}|I am from {value}.|My home is in {value}.
I moved to {value}.|I come from {value}.|I'm living in {value}.""",
    "ask_live": """Where do I live?|Where am I from?|Which city do I live in?|Do you know where I live?
What is my city?|where do I live|Which place am I from?|Where is my home?""",
    "echo": """Say {text}|Repeat: {text}|Repeat after me: {text}|Please say {text}|Say exactly: {text}|Echo {text}
Write {text}|Say "{text}"|Repeat this: {text}
repeat {text}|Answer with {text}|Please repeat: {text}|Say the words {text}|Reply with exactly: {text}
Print {text}|Respond with: {text}|Type {text}""",
    "plus": """What is {a} + {b}?|{a} + {b}|{a} plus {b}|What is {a} plus {b}?|{a}+{b}|{a} + {b} = ?
Add {a} and {b}|How much is {a} + {b}?|Calculate {a} + {b}|what is {a}+{b}?|Compute {a} + {b}.
The sum of {a} and {b}?""",
    "minus": """What is {a} - {b}?|{a} - {b}|{a} minus {b}|What is {a} minus {b}?|{a}-{b}|{a} - {b} = ?
Subtract {b} from {a}|How much is {a} - {b}?|Calculate {a} - {b}""",
    "times": """What is {a} * {b}?|{a} * {b}|{a} times {b}|What is {a} times {b}?|{a} x {b}|{a} * {b} = ?
Multiply {a} by {b}|How much is {a} times {b}?""",
    "count": """Count to {n}|Count from 1 to {n}|Can you count to {n}?|Please count to {n}.|count to {n}
Count up to {n}""",
    "filler": """How are you today?|I like the weather today.|Tell me more|That is nice.|OK|Great!|I had a long day.
Interesting.|Let us talk.|I see.|Good.|I went to a {noun} today.
My {noun} is {adjective}.|Cool|I bought a {adjective} {noun}.|The {noun} is very {adjective}.
Nice to talk to you.|I am a bit tired.|I am happy today.|Okay, good.""",
    "please": """{do}|{do}.|Please {do}|Please {do}.|Can you {do}?|Could you {do}?|I want you to {do}.
I would like you to {do}.|{do}, please.|Now {do}.|I need you to {do}.|Would you {do}?|{do} now
Can you please {do}?""",
    "given": """{p} {v}|{p} {v}|{p} {v}|{p}: {v}|{p} = {v}|{p} is {v}|the {p} {v}|{p} set to {v}|{v} as {p}
{v} as the {p}|a {p} of {v}""",
    "join": " with | with | using |, | and use | where |: |; ",
    "both": """{a} and {b}|{a}. Also {b}|{a} and then {b}|{a} and also {b}|First {a}, then {b}|{a}; {b}
{a} and after that {b}""",
    "mem_recall": """What do you know about {thing}?|Tell me about {thing}.|Who is {thing}?
What is in your notes about {thing}?|Do you know {thing}?|What did I tell you about {thing}?
Look up {thing}.|what do you remember about {thing}""",
    "mem_list": """What notes do you have?|List your notes.|Which files are in your memory?|Show me all notes.
What is in your memory?|List all files.|list your files|Show the memory tree.|Which notes exist?""",
    "mem_exists": """Is there a note called {path}?|Do you have the file {path}?|Does {path} exist?
Check if {path} exists.|Is {path} in your memory?|Have you got a note {path}?""",
    "mem_delete": """Delete the note {path}.|Remove {path}.|Forget the note {path}.|Delete {path}
Please remove the file {path}.|Throw away {path}.""",
    "mem_write": """Write a note {path}: {text}|Create a note {path} that says {text}|Save in {path}: {text}
Make a file {path} with the text {text}|Put this into {path}: {text}|Create {path} with {text}""",
    "mem_link": """Follow the link [[{link}]].|What is behind [[{link}]]?|Open [[{link}]].
Read the note [[{link}]]|Go to [[{link}]].|Show me [[{link}]]""",
    "mem_read": """Read {path}.|What does {path} say?|Show me {path}.|Open the note {path}.|What is in {path}?
Please read the note {path}""",
    "mem_person": """My {relation} is {name}.|My {relation} is called {name}.|I have a {relation} called {name}.
Remember that my {relation} is {name}.|{name} is my {relation}.
Note that my {relation}'s name is {name}.""",
    "mem_person_fact": """{name} lives in {place}.|{name} lives in {place}|{name} is from {place}.
Remember that {name} lives in {place}.""",
    "mem_where": """Where does my {relation} live?|In which city does my {relation} live?
Where is my {relation} from?|Do you know where my {relation} lives?""",
}

_HELD_OUT = {
    "greet": """Hello, good to see you!|Hi, how do you do?|Well hello|Hey you|Good morning to you|Hello, hello!
Oh hi|Hey, nice to see you|Hello dear model""",
    "thanks": "Many thanks|Thank you so much!|Great work, thanks",
    "bye": "Bye bye|See you tomorrow|Goodbye then",
    "self": """So who are you?|What exactly are you?|Could you introduce yourself?
Tell me a bit about yourself|Which AI model are you?|Please tell me what you are
And who are you?|What is the name of this model?""",
    "size": """How many parameters have you got?|Are you a big model?|How big is this model?
What is your parameter count?""",
    "bigger": """How would I load a larger model?|What is the command to load a bigger model?
Can I use a better model?|How can I load another model?|I would like to run a bigger model""",
    "can": "So what can you do?|What are you capable of?|What can I ask you?|Which tasks can you do?",
    "maker": "Who are your makers?|Who has trained you?|How have you been made?",
    "unknown": """Please explain {topic} to me|What is known about {topic}?|Tell me a story about a {noun}
Who discovered {topic}?|Which {noun} is the best in {place}?""",
    "ask_name": """So what is my name?|What was my name again?|Could you tell me my name?|Now, what is my name?
Remind me, what is my name?""",
    "ask": """So what is my {key}?|What was my {key} again?|Could you tell me my {key}?
Now, what is my {key}?|Remind me, what is my {key}?""",
    "ask_of": """So what is the {key} of {thing}?|What was the {key} of {thing} again?
Could you tell me the {key} of {thing}?|Now, what is the {key} of {thing}?""",
    "tell_name": """Hello there, my name is {value}.|Good evening, I'm {value}.|Hey! I am {value}.
So, my name is {value}""",
    "tell": """I should mention that my {key} is {value}.|For your information, my {key} is {value}.
You should know that my {key} is {value}|And my {key} is {value}.""",
    "tell_of": """I should mention that the {key} of {thing} is {value}.
You should know: the {key} of {thing} is {value}.|And the {key} of {thing} is {value}.""",
    "change": "Oh wait, my {key} is {value}.|I was wrong, my {key} is {value}.",
    "live": """At the moment I live in {value}.|These days I live in {value}|By the way, I live in {value}.""",
    "ask_live": "So where do I live?|In which city do I live?|Remind me, where do I live?",
    "echo": "Now say {text}|Repeat the following: {text}|Could you say {text}",
    "plus": "How much is {a} plus {b}?|Tell me {a} + {b}|Please compute {a} + {b}",
    "minus": "How much is {a} minus {b}?|Tell me {a} - {b}",
    "times": "Tell me {a} * {b}|How much is {a} * {b}?",
    "count": "Now count to {n}|Could you count to {n}?",
    "filler": """It is a fine day.|I was at the {noun} yesterday.|All good here.|Let me think.
That {noun} was {adjective}.""",
    "please": """I'd like you to {do}.|Be so kind and {do}.|Go ahead and {do}|Kindly {do}.
It would be great if you could {do}.""",
    "given": "{p} being {v}|the {p} should be {v}|{p} {v}|{v} for the {p}|the {p} is {v}",
    "join": ", |, with | and take | with ",
    "both": "{a}, and afterwards {b}|{a}, and please also {b}|Start with this: {a}. Next, {b}",
    "mem_recall": """Can you tell me about {thing}?|What have you noted about {thing}?|Do you remember {thing}?""",
    "mem_list": "Could you list your notes?|Which notes do you keep?|Show me what notes there are.",
    "mem_exists": "Can you check whether {path} exists?|Is there already a file {path}?",
    "mem_delete": "Could you delete {path}?|I no longer need {path}, delete it.",
    "mem_write": "Please create a note {path} saying {text}|I want a note {path} with this text: {text}",
    "mem_link": "Could you open [[{link}]]?|Please follow [[{link}]]",
    "mem_read": "Could you read {path}?|Tell me what {path} says.",
    "mem_person": "You should know that my {relation} is {name}.|By the way, my {relation} is called {name}.",
    "mem_person_fact": "You should know that {name} lives in {place}.|By the way, {name} lives in {place}.",
    "mem_where": "Can you tell me where my {relation} lives?|Which city does my {relation} live in?",
}


def _lists(table: dict[str, str]) -> dict[str, list[str]]:
    return {kind: [p for line in text.split("\n") for p in line.split("|") if p] for kind, text in table.items()}


TRAINING = _lists(_TRAINING)
HELD_OUT = _lists(_HELD_OUT)
