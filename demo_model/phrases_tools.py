"""How the Web UI's tools, JSON, sums and what is known by heart are asked for, for the training and the evaluation."""

TRAINING = {
    "clock_time": """What time is it?|what time is it|What's the time?|What is the time?|Tell me the time
Which time is it?|What time is it now?|What time do we have?|Do you know what time it is?|Do you have the time?|Time?
The time, please.
How late is it?|Tell me what time it is.|What is the current time?|Current time?|Can you tell me the time?|time please
Is it late already?|What does the clock say?|Please look at the clock.|Say what time it is
I need to know the time|What is the local time?|What hour is it?|Could you check the time?|Give me the time, please
Now, what time is it?""",
    "clock_date": """What day is it?|What is the date?|What's the date today?|What is today's date?
Which day is it today?
Tell me the date|Today's date?|What date is it?|What date do we have?|what is the date|Date?|The date, please
Can you tell me today's date?|Do you know the date?|Which date is today?|What is the current date?|what day is today
Say which day it is|I need today's date|Please tell me the date.|Could you check the date?|Give me the date of today""",
    "clock_both": """What is the date and the time?|Tell me the date and time|Date and time?|date and time please
What are the current date and time?|Give me date and time.|I need the date and the time|What day and time is it?
Get the current date and time|Call the clock for date and time|Use your tool to get the date and the time
Which date and time do we have?|Say the date and the time|Please tell me the date and the time.""",
    "clock_zone": """What time zone am I in?|Which time zone is this?|What is my time zone?|my time zone?
Tell me my time zone|Which time zone do I have?|Do you know my time zone?|What's the time zone here?
In which time zone am I?|Time zone?|Say which time zone I am in""",
    "clock_year": """What year is it?|Which year is it?|what year is it|Tell me the year|What is the current year?
Which year do we have?|What's the year?|Year?|Do you know which year it is?|Say what year it is""",
    "system_os": """Which operating system do I have?|What operating system is this?|What OS am I on?|What is my OS?
Am I on Linux or Windows?|Which OS does this run on?|Tell me my operating system|Do I use a Mac?|what os is this
Which system do I use?|What platform is this?|Get the runtime info|Get info|Show me the system information
What do you run on?|Which operating system am I using?|Is this Windows?|Say what system I am on|Name my OS""",
    "system_files": """Can you read my files?|Read the file {path}|Open {path}|Can you run shell commands?|Run {command}
Delete the file {path}|List my files|What is in {path}?|Can you open files on my computer?|Execute {command}
Do you have access to my files?|Can you use my shell?|Show me {path}|Which files are in my folder?|Edit {path} for me
Can you write a file?|Have you got a terminal?|Please run the command {command}|Can you see my local files?
Start {command} in the shell|Look into {path}|Do you have file access?""",
    "script_code": """Run this JavaScript: {code}|Run {code}|Execute this code: {code}|Evaluate {code}|run `{code}`
Please run this script: {code}|What does this give: {code}|Try this in JavaScript: {code}|Execute `{code}`
Run the code {code}|Use JavaScript: {code}|In JavaScript: {code}|What is the result of {code}|JS: {code}
Can you run this? {code}|Here is some code, run it: {code}|Let JavaScript do this: {code}""",
    "script_sum": """Use JavaScript to compute {sum}|Compute {sum} with JavaScript|Calculate {sum} with a script
What is {sum}? Use JavaScript.|Run JavaScript for {sum}|Let a script work out {sum}|What is {sum}?|{sum}|{sum} = ?
How much is {sum}?|Calculate {sum}|Compute {sum}|Work out {sum}|{sum}?|What does {sum} make?|Please compute {sum}.""",
    "world": """What is the capital of {country}?|Which city is the capital of {country}?|capital of {country}
Name the capital of {country}|Where is {country}?|How many people live in {country}?
What language is spoken in {country}?|Who is the president of {country}?|What is {country} known for?
When did {country} win the cup?|Is {country} large?
What do people eat in {country}?|Who wrote {title}?|When did {name} {surname} live?|Why is the sky blue?
How far is the moon?|What is the tallest mountain?|Who painted the {title}?|What is the largest ocean?
How old is the earth?|What is the speed of light?|Who discovered {country}?|How does gravity work?
Which river flows through {place}?|What is a black hole?|Why do cats purr?|How do planes fly?|Who was {name} {surname}?
Give me three facts about {country}|Tell me about the history of {country}|What happened in {country} in {year}?
Recommend a book|Which film should I watch?|Plan a trip to {country}|What is love?|What is the meaning of life?
Write an essay about {country}|Write a program that sorts numbers|Translate {title} into the language of {country}
How do I cook {food}?|What is in {food}?|How healthy is {food}?|Who invented {food}?|Do you like {food}?
Which is better, {food} or {food2}?|Explain how {food} is made.""",
    "joke": """Tell me a joke|Tell me a joke.|Do you know a joke?|Make me laugh|A joke, please|Say something funny
Can you tell me a joke?|tell me a joke|Know any jokes?|I want to hear a joke|Tell a joke|Have you got a joke for me?
Cheer me up with a joke|Joke?|Please tell me a joke!|Let me hear a joke|Give me a joke|I need a laugh""",
    "more_jokes": """Another one|Another joke, please|One more|Tell me another|More!|Do you know another joke?
And another?
Next joke|Tell me one more joke|Again, another one|Any more jokes?|Go on, another joke""",
    "sentence": """Write a sentence about {subject}.|Write one sentence about {subject}|Say something about {subject}
Give me a sentence about {subject}|A sentence about {subject}, please|Tell me a sentence about {subject}
Write a short sentence about {subject}|Make a sentence about {subject}|One sentence about {subject}
Can you write a sentence about {subject}?|Describe {subject} in one sentence|Write a line about {subject}
Please write a sentence about {subject}.|I would like a sentence about {subject}|sentence about {subject}""",
    "json": """{facts} Give me that as JSON.|Extract the data: {facts}|As JSON: {facts}|Turn this into JSON: {facts}
{facts} Return JSON.|{facts}|{facts}|{facts}|Parse this: {facts}|Fill in the form: {facts}|Put this into JSON: {facts}
Extract the fields from this text: {facts}|Read this and give me the data. {facts}|Convert to JSON: {facts}
Take the values from here: {facts}|Here is a text: {facts}|Note this down as data: {facts}|{facts} Answer in JSON.
Structure this: {facts}|Which values are in this text? {facts}|{facts} Extract it.|Text: {facts}|Input: {facts}""",
    "json_keys": """{facts} Answer in JSON with the keys {keys}.|Give me JSON with {keys}: {facts}
Return a JSON object with {keys}. {facts}|{facts} Reply with a JSON object that has the keys {keys}
Write JSON with the fields {keys} for this: {facts}|{facts} As JSON with {keys}, please.|JSON with {keys}: {facts}
{facts} Make JSON of it, with the fields {keys}.|Answer only with JSON, keys {keys}. {facts}
Make a JSON object of {keys}. {facts}""",
    "json_make": """Make up {thing}|Invent {thing}.|Give me {thing}|Give me {thing} as JSON|Create {thing}
Show me {thing}
Generate {thing}|I need {thing} as an example|An example of {thing}|Think of {thing}|Describe {thing}
Give me an example: {thing}|JSON for {thing}, please|Write {thing} in JSON|Please make up {thing}.|Any {thing}""",
    "three": """{a}, {b} and {c}|{a}, {b}, {c}|{a}, {b}, and {c}|{a}. {b}. {c}|{a}. Then {b}. Then {c}|{a}; {b}; {c}
First {a}, then {b}, then {c}|First {a}. Second, {b}. Third, {c}|1. {a} 2. {b} 3. {c}|Three things: {a}, {b} and {c}
{a} and {b} and {c}|{a}, also {b}, also {c}|{a}, then {b}, and at last {c}|Please {a}, {b} and {c}.
{a}, {b}, and then {c}|Do three things: {a}; {b}; {c}|{a} and {b}, and also {c}|{a}, and {b}. And {c}
I want you to {a}, to {b} and to {c}|{a}. After that {b}, and in the end {c}""",
}

HELD_OUT = {
    "clock_time": """Could you tell me what time it is?|What is the time right now?|So what time is it?
Tell me the time, please""",
    "clock_date": """Could you tell me today's date?|So what day is it today?|What is the date today?
Tell me today's date""",
    "clock_both": "Could you give me the date and time?|What are the date and the time now?",
    "clock_zone": "Could you tell me my time zone?|So which time zone am I in?",
    "clock_year": "Could you tell me the year?|So what year is it now?",
    "system_os": "Could you tell me which operating system I use?|What operating system am I on?|So which OS is this?",
    "system_files": "Could you read {path}?|Do you see my local files?|Could you run {command} in a shell?",
    "script_code": "Could you run this JavaScript? {code}|Now run the script {code}|Let me see what this gives: {code}",
    "script_sum": "Could you compute {sum} with a script?|Tell me {sum}|How much would {sum} be?",
    "world": """So what is the capital of {country}?|Could you name the capital of {country}?
Tell me something about {country}
Could you explain how {food} is made?|Who lived in {country} in {year}?|What is the largest city of {country}?
Could you recommend a book about {country}?|How tall was {name} {surname}?""",
    "joke": "Could you tell me a joke?|So tell me a joke|Any joke for me?",
    "more_jokes": "Could you tell me another one?|And one more joke?",
    "sentence": """Could you write a sentence about {subject}?|Please give me one sentence about {subject}
Now a sentence about {subject}""",
    "json": """{facts} Could you give me this as JSON?|Please extract the values: {facts}|{facts}
Data of this text: {facts}
Make JSON of this: {facts}""",
    "json_keys": """{facts} Could you answer in JSON with {keys}?|I want JSON with {keys}: {facts}
{facts} JSON with the keys {keys}, please""",
    "json_make": "Could you make up {thing}?|Please invent {thing}|I want {thing}",
    "three": "{a}, {b}, and afterwards {c}|Start with this: {a}. Next, {b}. Last, {c}|{a}, and please also {b} and {c}",
}
