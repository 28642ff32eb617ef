"""How things are said: phrasings for training and, apart from them, for the evaluation."""

from demo_model import phrases_tools

_TRAINING = {
    "greet": """Hello|Hi|Hey|Hello!|Hi!|hello|hi|hey|hi there|Hello there|Hey there!|Good morning|Good evening
Hello, how are you?
Hi, how are you?|Good morning!|good afternoon|Greetings|Hiya|hello!|hi!|Hello.|Yo|Hey, how is it going?
How are you?|how are you
Hi there!|Hello friend|Good day|Hello, nice to meet you|Say hello|Please greet me|Hello world|hey!
Hello, anyone there?|test
Hi, can you help me?|Hello, can you help me?|I need some help|can you help me|Are you there?|Good evening!
Hello again|Hi again|Hello to you|Hi you|Hey hey|Hello hello|Hi hi|Well, hi|Well, hello there|Oh, hello|Oh hey
Ah, hello!|So, hello|Good to see you|Nice to see you|Nice to meet you|Glad to see you!|Hi, nice to see you
Hi, good to meet you|Hello, how are things?|Hi, how are you doing?|How do you do?|Hey, how do you do|Good afternoon!
Good morning, model|Good evening to you|Good day to you!|A good morning to you|Hello model|Hello my model
Dear model, hello
Hey model|Hi dear|Hello dear friend|Hi little model|Hello little one|Howdy|Welcome|Hello computer|Hello robot|Hi bot
hello assistant|Hi assistant!|Hey assistant|Morning!|Evening|Hey there, you|You there?|Hello you|Hiya!|Heya|Hallo|Hullo
Hello and good morning|Hi, just saying hello|I say hello|Just wanted to say hi|Let me greet you|Greetings to you""",
    "thanks": """Thanks|Thank you|Thank you!|thanks!|Thanks a lot|Great, thanks|thx|Thank you very much
Perfect, thank you|Cool, thanks|That was helpful|Good job|Well done|Thanks so much|Really, thank you
Good work|Nice work, thank you|Thanks, great|Thanks, good work|Big thanks|A thousand thanks|I thank you|My thanks
Thanks again|Lovely, thanks|Very good, thanks""",
    "bye": """Bye|Goodbye|bye!|See you|See you later|Good night|Goodbye!|That is all, bye|I have to go
Talk to you later|See you soon|See you next week|See you then|Bye then|Bye for now|Bye now|Goodbye for now|So long
Good bye|Farewell|Until tomorrow|Until later|I am off, bye|That's it, goodbye|Have a nice day, bye""",
    "self": """Who are you?|What are you?|Tell me about yourself|What model are you?|Which model is this?|who are you
Introduce yourself
What is your name?|What model am I talking to?|Are you an AI?|Describe yourself|what are you
Can you introduce yourself?
Please introduce yourself|Tell me who you are|What kind of model are you?|Which model are you?
what's your name?|Are you a chatbot?
What is tiles-nano?|Who am I talking to?|Hi, who are you?|Hello, what are you?|Are you ChatGPT?
Say who you are|What LLM is this?|And what are you?|So what are you?|Who exactly are you?|What exactly is this?
Please tell me who you are|Please tell me about yourself|Tell me more about yourself|Tell me something about yourself
Could you tell me who you are?|Could you describe yourself?|Would you introduce yourself?|What is this model?
What is this model called?|What is the model called?|What's the name of the model?|Which AI is this?|Which AI are you?
Which bot are you?|What AI model is this?|What sort of model are you?|And your name?|And what is your name?
Say your name|Your name?|Which model do I talk to?|Who is there?|Who is this?|May I know who you are?|Are you a model?
Are you a language model?|Name yourself|I want to know who you are|Explain who you are|Explain what you are""",
    "size": """How big are you?|How many parameters do you have?|Are you a large model?|How large are you?
Are you big?
What size are you?
how many parameters|Are you small?|How tiny are you?|What is your size?|How many weights do you have?
How many parameters are there?|How many parameters has this model?
How large is this model?|Is this a big model?|Is this model large?|What is the size of the model?|How small are you?
What's your number of parameters?|Number of parameters?|Your parameter number?|And how big are you?|Are you tiny?
How many weights has the model got?|Tell me your size|You are small, aren't you?""",
    "bigger": """How do I load a bigger model?|How can I use a better model?|How do I run another model?
Can I load a different model?
How do I switch to a real model?|I want a bigger model|how to load a larger model|How do I use my own model?
Which command loads a larger model?
How do I start the server with another model?|I need a smarter model|How can I replace you?
Show me how to load a bigger model
How do I serve a different model?|What do I do to get a better model?|load a bigger model
How do I change the model?|How would I use a larger model?|How would I run a better model?|How could I load my model?
What is the command for a larger model?|What is the command to run another model?|Which command runs a bigger model?
Can I use another model?|Can I run a bigger model?|May I load a better model?|How can I load a bigger one?
How can I get a different model?|I would like to use a better model|I would like to load another model
I'd like a larger model|I want to load a better model|I want to run my own model|Tell me how to load a larger model
Please show me how to use a bigger model|What must I do to load a bigger model?|Where do I get a better model?
Is there a way to load a larger model?|Let me run a bigger model""",
    "can": """What can you do?|What are you good at?|What can you help me with?|help|Help|What are your abilities?
How can you help me?
What are you able to do?|Tell me what you can do|what can you do|What do you do?|What are your skills?
Which things can you do?|What else can you do?|And what can you do?|What can I do with you?|What may I ask?
What could I ask you?|Which questions can I ask you?|What tasks are you good at?|Which tasks do you know?
What jobs can you do?|What do you know to do?|What are your talents?|What are you made for?|What are you for?
What is it that you can do?|Show me what you can do""",
    "maker": """Who made you?|Who trained you?|How were you made?|Who built you?|Where do you come from?
How were you trained?|Who created you?
Which company made you?|How did you learn?|What data were you trained on?|Who is your maker?|Who are your creators?
Who has made you?|Who has built you?|How did they make you?|How have you been trained?|How have they built you?
Who was it that trained you?|Which people made you?|By whom were you made?|Where were you made?
How did you come to be?""",
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
Can you please {do}?|Be so good as to {do}.|Be nice and {do}.|Be a friend and {do}|Would you be so kind as to {do}?
Do me a favour and {do}.|Go and {do}|Go on and {do}.|Come on, {do}|Feel free to {do}|It would be nice to {do}.
It would help me if you could {do}.|It would be good if you can {do}|I would be glad if you could {do}.
I would love you to {do}|I'd be happy if you would {do}.|I wish you would {do}.|Let us {do}.|let's {do}|Time to {do}
Try to {do}|Your task: {do}|Your job is to {do}.|Next: {do}|Next, {do}.|Quick, {do}!|Hey, {do}|Hi, please {do}
Hello! Could you {do}?|OK, {do}|OK, now {do}.|Right, {do}|Alright, {do}.|Just {do}|Help me {do}.|Help me to {do}
I'd appreciate it if you could {do}.|You should {do}.|You could {do}|Maybe you can {do}|{do} for me|{do} for me, please
{do} right away.|{do} when you can|{do}, thanks|{do}, thank you.|{do}, will you?|{do}, would you?|{do} if you can
{do} as soon as possible.|{do}!|Are you able to {do}?|Is it possible to {do}?|How about you {do}?|Make sure to {do}.
Don't forget to {do}|I want to {do}.|I'd want you to {do}|I have to {do}|We need to {do}.|We should {do}|I must {do}.
My wish: {do}|One thing: {do}.|Another thing: {do}|Could I get you to {do}?|May I ask you to {do}?|I ask you to {do}.
Will you {do}?|Can we {do}?|Do this: {do}|Please do this: {do}.|So {do}|And now {do}.|Then {do}|Also {do}.|First {do}
Please be quick and {do}.|Sit down and {do}|Take a moment and {do}.|Be careful and {do}.|Use a tool and {do}
With your tools, {do}.|By means of a tool, {do}|Use the right tool to {do}.|Call a tool to {do}""",
    "given": """{p} {v}|{p} {v}|{p} {v}|{p}: {v}|{p} = {v}|{p} is {v}|the {p} {v}|{p} set to {v}|{v} as {p}
{v} as the {p}|a {p} of {v}|{p} to {v}|{p} as {v}|{p} equal to {v}|{p} equals {v}|the {p} = {v}|the {p}: {v}
the {p} would be {v}|the {p} must be {v}|the {p} shall be {v}|{p} must be {v}|{p} will be {v}|let the {p} be {v}
the {p} has to be {v}|{v} to be the {p}|{v} is the {p}|{v} is its {p}|its {p} {v}|its {p} is {v}|for {p} use {v}
for the {p} use {v}|as {p} use {v}|as the {p} {v}|for {p} {v}|{p} of {v}|{v} goes for {p}|{v} goes in {p}
the value {v} for {p}|the value of {p} {v}|"{v}" as {p}|{p} "{v}"|{p} '{v}'|`{v}` as the {p}|{p} `{v}`|{p} ({v})
{p} -> {v}|{p} set as {v}|the {p} set to {v}|{p} fixed at {v}|whose {p} is {v}|that has {p} {v}|{v} serves as {p}
{v} serves as the {p}|{p} called {v}|{p} named {v}|under {p} {v}|at {p} {v}|by {p} {v}|{p} like {v}|{p} means {v}""",
    "join": """ with | with | using |, | and use | where |: |; |. Use |. Take |, taking |, using | having | by | given |
 plus | and set | and put | and give | and choose | so that | for | at | - |, say |. The details: |, as follows: |
, where |, with | and then use | on condition that | when | while | that has | under | of | in this way: |. Note: """,
    "both": """{a}, {b}|{a} then {b}|{a}, then {b}|{a}. Then {b}|{a}. And {b}|{a}, also {b}|{a} as well as {b}
{a}. Next {b}
{a}. After that, {b}|{a}. When done, {b}|Please {a} and {b}|Please {a}. Please {b}|I want you to {a} and to {b}
Two things: {a} and {b}|Do two things: {a}; {b}|{a} but also {b}|{a}, and when that is done {b}|Once you {a}, {b}
Both: {a}, {b}|1. {a} 2. {b}|{a} + {b}|Begin with: {a}. Go on with: {b}|Could you {a} and {b}?
Can you {a}, and also {b}?
{a}. In addition, {b}|{a}, plus {b}|{a}. Besides, {b}|{a}. Oh, and {b}|{a}, next {b}|At first {a}, later {b}
{a} and, while you are at it, {b}|{a}. Second: {b}|First: {a}. Second: {b}|{a} and at the same time {b}
{a} and {b}|{a}. Also {b}|{a} and then {b}|{a} and also {b}|First {a}, then {b}|{a}; {b}
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


TRAINING = _lists(_TRAINING | phrases_tools.TRAINING)
HELD_OUT = _lists(_HELD_OUT | phrases_tools.HELD_OUT)
