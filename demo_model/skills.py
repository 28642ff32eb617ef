"""Tools of everyday kinds, with names, parameter names and descriptions that vary."""

from collections.abc import Callable
from typing import Any

from demo_model.schemas import Parameter, Skill, one_word, some_words, string, styled
from demo_model.source import Source
from demo_model.table import rows

Made = Callable[[Source], Any]
MAKES: dict[str, Made] = {
    "place": Source.place,
    "name": Source.name,
    "path": Source.path,
    "email": Source.email,
    "date": Source.date,
    "time": Source.time,
    "code": Source.code,
    "word": one_word,
    "words": some_words,
    "number": Source.number,
    "minutes": lambda s: s.rng.randint(1, 90),
    "percent": lambda s: s.rng.randint(0, 100),
    "language": lambda s: s.word("LANGUAGES"),
    "food": lambda s: s.word("FOODS"),
    "noun": Source.noun,
    "currency": lambda s: s.any(("EUR", "USD", "GBP", "JPY", "CHF", "SEK", "NOK", "PLN")),
    "switch": lambda s: s.any(("on", "off")),
    "priority": lambda s: s.any(("low", "medium", "high")),
    "unit": lambda s: s.any(("celsius", "fahrenheit")),
    "sum": lambda s: f"{s.rng.randint(1, 99)} {s.any('+-*/')} {s.rng.randint(1, 99)}",
    "command": lambda s: command(s),
    "line": lambda s: line(s),
    "bool": lambda s: s.chance(0.5),
}
CODING = ("read", "bash", "write", "edit", "list_dir", "grep", "fetch_url")
ENUMS = {"switch": ["on", "off"], "priority": ["low", "medium", "high"], "unit": ["celsius", "fahrenheit"]}


def command(source: Source) -> str:
    """A shell command."""
    shape = source.any(
        (
            "ls -la",
            "ls",
            "ls {f}",
            "cat {p}",
            "git status",
            "git log --oneline",
            "pwd",
            "python {p}",
            "grep {w} {p}",
            "mkdir {w}",
            "wc -l {p}",
            "echo {w}",
            "head -n {n} {p}",
            "rm {p}",
            "npm run {w}",
            "make {w}",
            "find . -name {w}",
            "git checkout {w}",
            "touch {p}",
            "{w} --{x} {p}",
        )
    )
    return shape.format(
        p=source.path(), w=source.plain(), x=source.plain(), n=source.rng.randint(1, 50), f=source.plain()
    )


def line(source: Source) -> str:
    """A short line of a file: words or code."""
    shape = source.any(
        (
            "{a} {b} {c}",
            "{A} {b}.",
            "print('{a}')",
            "{a} = {n}",
            "# {A} {b}",
            "{a}: {b}",
            "hello {a}",
            "import {a}",
            "def {a}(): return {n}",
            "{a}",
        )
    )
    return shape.format(
        a=source.plain(), A=source.plain().capitalize(), b=source.plain(), c=source.plain(), n=source.number()
    )


# names | descriptions | parameters as `slot=kind:names` (a ? marks optional) | wordings with the slots
TRAINING = """
get_weather|weather_lookup|fetchWeather|current_weather|weather ## Get the current weather for a city.|Current
  weather of a place|Returns the weather and temperature ## a=place:city|location|place|town b=unit?:unit|units ##
  what is the weather in {a}|tell me the weather in {a}|how is the weather in {a}|get the weather for {a}|is it
  raining in {a}|what is the weather in {a} in {b}|how warm is it in {a} in {b}|weather in {a}
get_time|current_time|timeNow|clock ## Get the current time in a city.|Tells the local time of a place ##
  a=place:city|location|timezone|place ## what time is it in {a}|tell me the time in {a}|current time in {a}|how
  late is it in {a}
web_search|search|searchWeb|find_online|lookup ## Search the web.|Searches the internet for a query|Look something
  up online ## a=words:query|q|text|terms ## search for {a}|search the web for {a}|look up {a} online|google
  {a}|find {a} on the internet
calculator|calculate|evaluate|compute ## Evaluate an arithmetic expression.|Calculates the result of an
  expression|Does the maths ## a=sum:expression|formula|input|expr ## calculate {a}|compute {a}|evaluate {a}|what is
  {a}|work out {a}
send_email|sendMail|email|mail_send ## Send an email.|Sends an e-mail to somebody ## a=email:to|recipient|address
  b=words:subject|title ## send an email to {a} with the subject {b}|email {a} about {b}|write a mail to {a} about
  {b}|mail {a} with subject {b}
send_message|sendText|message|notify ## Send a text message to a person.|Sends a message to a contact ##
  a=name:recipient|to|contact|person b=words:text|message|body|content ## tell {a} {b}|send {a} the message
  {b}|message {a}: {b}|text {a} "{b}"|send a message to {a} saying {b}
set_reminder|add_reminder|remind|createReminder ## Set a reminder.|Reminds the user of something at a time ##
  a=words:text|title|what|note b=time:time|at|when ## remind me of {a} at {b}|set a reminder for {a} at {b}|remind
  me at {b} of {a}|at {b} remind me: {a}
create_event|addEvent|schedule_meeting|calendar_add ## Create a calendar event.|Adds an event to the calendar ##
  a=words:title|name|summary b=date:date|day|on c=time?:time|start|at ## schedule {a} on {b}|add {a} to my calendar
  on {b} at {c}|create an event {a} on {b} at {c}|put {a} in the calendar for {b}
play_music|playSong|music_play|play ## Play a song.|Plays music by title or artist ## a=words:song|title|track
  b=name?:artist|by|singer ## play {a}|play {a} by {b}|put on {a} by {b}|I want to hear {a}|start the song {a}
translate|translate_text|translator ## Translate a text into a language.|Translates text ##
  a=words:text|input|source b=language:language|target|to|target_language ## translate {a} into {b}|how do you say
  {a} in {b}|translate "{a}" to {b}|say {a} in {b}
convert_currency|exchange|currencyConvert ## Convert an amount of money between currencies.|Currency conversion ##
  a=number:amount|value|sum b=currency:from|source|from_currency c=currency:to|target|to_currency ## convert {a} {b}
  to {c}|how much is {a} {b} in {c}|change {a} {b} into {c}|what is {a} {b} in {c}
set_timer|timer|startTimer|countdown ## Start a timer.|Sets a timer for some minutes ##
  a=minutes:minutes|duration|length ## set a timer for {a} minutes|start a timer of {a} minutes|wake me in {a}
  minutes|timer {a} minutes
set_light|switchLight|light_control|lamp ## Turn a light on or off.|Controls the lights of a room ##
  a=noun:room|where|area b=switch:state|mode|power ## turn the light in the {a} {b}|switch the {a} light {b}|lights
  {b} in the {a}|turn {b} the light in the {a}
set_volume|volume|setVolume ## Set the volume in percent.|Changes how loud it is ##
  a=percent:level|volume|percent|value ## set the volume to {a}|volume {a}|make the volume {a} percent|change the
  volume to {a}
book_table|reserveTable|restaurant_booking ## Book a table in a restaurant.|Reserves a table ##
  a=word:restaurant|place|name b=minutes:people|guests|persons|party_size ## book a table at {a} for {b}
  people|reserve a table for {b} at {a}|get me a table for {b} people at {a}
add_task|createTask|todo_add|new_task ## Add a task to the list.|Creates a to-do item ##
  a=words:title|task|text|name b=priority?:priority|importance|level ## add the task {a}|add a task {a} with {b}
  priority|put {a} on my to-do list|create a {b} priority task {a}|new task: {a}
order_status|trackOrder|get_order|check_order ## Get the status of an order.|Looks up an order by its number ##
  a=code:order_id|order|id|number ## what is the status of order {a}|where is my order {a}|check order {a}|track the
  order {a}|status of {a}
get_stock|stock_price|quote|stockQuote ## Get the price of a stock.|Returns the current stock price ##
  a=code:symbol|ticker|stock ## what is the stock price of {a}|price of the {a} stock|get the stock {a}|how is the
  {a} share doing
read|read_file|readFile|open_file|cat|view ## Read the contents of a file.|Reads a file from disk|Read a file.
  Output is cut after 2000 lines; use offset and limit for large files. ## a=path:path|file|file_path|filename
  b=number?:offset|start|from_line c=number?:limit|lines|max_lines ## read {a}|read the file {a}|show me {a}|open
  {a}|what is in {a}|what does {a} contain|show the contents of {a}|print the file {a}|have a look at {a}
bash|run_command|shell|execute|exec|terminal ## Run a shell command.|Execute a bash command in the working
  directory. Returns stdout and stderr.|Runs a command in the terminal ## a=command:command|cmd|script|input
  b=number?:timeout|time_limit ## run {a}|run the command {a}|execute {a}|run `{a}`|please execute `{a}`|run {a} in
  the shell|use the shell to run {a}
write|write_file|writeFile|create_file|save_file ## Write content to a file.|Creates or overwrites a file. Makes
  parent folders.|Write text to a file ## a=path:path|file|file_path|filename b=line:content|text|data|contents ##
  write {b} to {a}|create the file {a} with the content {b}|create {a} with {b}|save {b} in {a}|make a file {a}
  containing {b}|write `{b}` into {a}
edit|edit_file|replace|editFile|str_replace ## Edit a file by replacing text.|Replaces exact text in a file. The old
  text must match exactly. ## a=path:path|file|file_path|filename b=line:oldText|old_text|old_string|search|old
  c=line:newText|new_text|new_string|replacement|new ## in {a} replace {b} with {c}|replace {b} with {c} in
  {a}|change {b} to {c} in {a}|edit {a}: replace `{b}` with `{c}`|in {a} change {b} to {c}
list_dir|ls|listFiles|list_directory ## List the files in a folder.|Lists a directory ##
  a=path:path|folder|directory|dir ## list the files in {a}|what files are in {a}|list {a}|show the folder {a}|which
  files are in the folder {a}
grep|search_files|findText|code_search ## Search for text in files.|Finds lines that match a pattern ##
  a=word:pattern|query|text|regex b=path?:path|folder|dir ## search for {a} in {b}|find {a} in the files|grep {a} in
  {b}|where is {a} in the code|look for {a} in {b}
fetch_url|fetch|http_get|openPage|browse ## Fetch a web page.|Downloads a URL ## a=email:url|address|link|page ##
  fetch {a}|open the page {a}|get the URL {a}|download {a}|browse to {a}
save_note|remember|add_note|storeNote ## Save a note.|Keeps a note for later ## a=words:text|note|content ## save
  the note {a}|note down {a}|remember {a}|keep the note {a}
find_contact|get_contact|phone_book|lookupPerson ## Find a person in the contacts.|Looks up a contact ##
  a=name:name|person|contact|who ## find the contact {a}|what is the phone number of {a}|look up {a} in my
  contacts|who is {a} in my contacts
delete_user|removeUser|user_delete ## Delete a user account.|Removes a user ## a=name:user|username|name|account
  b=bool?:force|hard|permanent ## delete the user {a}|remove the account of {a}|delete user {a} with force {b}
add_numbers|add|sum|plus ## Add two numbers.|Returns the sum of a and b ## a=number:a|x|first|left
  b=number:b|y|second|right ## add {a} and {b}|what is {a} plus {b}|sum {a} and {b}|{a} + {b}
echo|repeat|say|echo_text ## Repeat a text.|Gives back the text ## a=words:text|message|input|value ## echo
  {a}|repeat {a}|say {a} with the tool
now|today|current_date|dateTime ## Get the current date and time.|Returns date and time ## ## what time is
  it|what is the date today|which day is it|what is the current time|tell me the date
about|page_info|appInfo ## Get information about this page.|Information about the application ## ## get the
  info|give me information about this page|show the info|what is this page|app information
ping|check_server|heartbeat|is_alive ## Check whether the service answers.|Pings the service ## ## ping|ping the
  service|check the server|is the service alive
search_trains|trainFinder|find_trains ## Find trains between two cities.|Looks for train connections ##
  a=place:start|from_city|origin_city b=place:end|to_city|goal c=date?:date|day|travel_day ## find a train from {a}
  to {b}|search trains from {a} to {b} on {c}|is there a train from {a} to {b} on {c}|trains between {a} and
  {b}|look for trains from {a} to {b}
find_hotel|hotelSearch|search_hotels ## Find hotels in a city.|Looks for a hotel ## a=place:city|where|location
  b=date?:check_in|arrival_day|from c=minutes?:nights|guests|rooms ## find a hotel in {a}|find me a hotel in {a} for
  {b}|search hotels in {a} for {c} nights|get me a hotel in {a}|look for a hotel in {a} from {b}
find_restaurant|restaurantFinder ## Find a restaurant by its kitchen.|Looks for places to eat ##
  a=food:food|kitchen|kind b=place?:city|near ## find a restaurant for {a}|get me a restaurant with {a} in {b}|where
  can I eat {a}|find {a} in {b}|look for a place with {a}
find_book|bookSearch|library_search ## Find a book in the library.|Looks for books ## a=words:title|book|query
  b=name?:author|writer|by ## find the book {a}|find a book by {b} called {a}|get me the book {a}|search the library
  for {a}|do you have the book {a}
find_movie|movieSearch|film_lookup ## Find a film by its title.|Gets information on a movie ##
  a=words:movie|film|title ## find the movie {a}|get me the film {a}|tell me about the movie {a}|what is the film
  {a} about|search for the movie {a}
get_news|newsFeed|headlines ## Get the news on a topic.|Returns headlines ## a=word:topic|subject|about ## get the
  news about {a}|give me the news on {a}|what is new about {a}|show headlines on {a}|news about {a}
track_ship|shipTracker|vessel_position ## Find out where a ship is.|Position of a vessel ## a=name:ship|vessel|boat
  ## where is the ship {a}|track the ship {a}|find the vessel {a}|give me the position of the ship {a}
track_bus|busTracker|next_bus ## When the next bus comes.|Departures of a bus line ## a=code:line|bus_line|number
  b=place?:stop|station ## when does the bus {a} come|where is the bus {a}|track the bus {a} at {b}|next bus {a}
  from {b}
find_synonym|synonyms|thesaurus ## Find words of like meaning.|Gives synonyms of a word ##
  a=noun:word|for_word|entry ## find a synonym of {a}|give me synonyms of {a}|which words mean {a}|give me other
  words for {a}|what is another word for {a}
spell_word|speller|spelling ## Spell a word.|Checks how a word is written ## a=noun:word|text|item ## spell the word
  {a}|how do you spell {a}|give me the spelling of {a}|check the spelling of {a}
get_lyrics|lyricsFinder|song_text ## Get the lyrics of a song.|Words of a song ## a=words:song|song_title|track_name
  ## get the lyrics of {a}|get me the words of the song {a}|show the lyrics of {a}|find the lyrics for {a}
set_heating|radiatorControl ## Set how warm the floor is.|Controls the floor heating ## a=noun:floor|place|circuit
  b=minutes:warmth|value|heat_level ## set the heating in the {a} to {b}|heat the {a} to {b}|turn the heating of the
  {a} up to {b}|make the {a} {b} degrees warm
set_alarm|alarmClock|wakeUp ## Set an alarm for a time.|Rings at a time ## a=time:time|at|alarm_time
  b=words?:label|name|for ## set an alarm for {a}|wake me at {a}|set the alarm to {a} for {b}|ring at {a} for
  {b}|alarm at {a}
open_blinds|blindsControl|shutters ## Move the blinds of a window.|Opens blinds by percent ##
  a=noun:window|room|blind b=percent:percent|position|openness ## open the blinds in the {a} to {b} percent|set the
  blinds of the {a} to {b}|move the blinds in the {a} to {b}
pay_bill|billPayment|settle_bill ## Pay a bill.|Settles an invoice ## a=code:bill|invoice_id|bill_number
  b=number?:amount|total|sum_paid ## pay the bill {a}|pay {b} for the bill {a}|settle the invoice {a}|settle the
  bill {a} with {b}
lend_money|giveLoan|lendOut ## Lend money to a person.|Gives somebody a loan ## a=number:loan|amount|how_much
  b=name:to|person|borrower ## lend {a} to {b}|give {b} a loan of {a}|lend {b} {a}|give {a} to {b} as a loan
add_to_cart|cartAdd|buy ## Put a product into the cart.|Adds to the shopping cart ## a=noun:product|item|article
  b=minutes?:quantity|count|pieces ## add {a} to my cart|buy {b} of {a}|put {b} {a} in the cart|put a {a} into the
  basket|I want to buy {a}
copy_file|fileCopy|duplicate_file ## Copy a file to another place.|Duplicates a file ##
  a=path:from_path|original|file b=path:to_path|copy|to ## copy {a} to {b}|copy the file {a} to {b}|duplicate {a} as
  {b}|make a copy of {a} at {b}|copy the file {a} as {b}
compare_files|diffFiles|file_diff ## Show how two files differ.|Compares two files ##
  a=path:first_file|left|old_file b=path:second_file|right|new_file ## compare {a} with {b}|compare {a} and {b}|what
  differs between {a} and {b}|show the difference of {a} and {b}
file_size|sizeOf|get_size ## Get the size of a file.|How large a file is ## a=path:file|of|path_name ## how large is
  {a}|how big is the file {a}|get the size of {a}|what is the size of {a}|how many bytes are in {a}
count_words|wordCounter ## Count the words of a text.|Number of words ## a=words:text|sentence|string ## count the
  words of {a}|how many words are in {a}|count the words in "{a}"|number of words of {a}
zip_folder|archiveFolder|compress ## Compress a folder.|Makes an archive of a folder ##
  a=path:folder|what|input_folder b=path?:archive|output|zip_name ## zip {a}|compress the folder {a}|pack {a} into
  {b}|make an archive of {a}|archive the folder {a} as {b}
call_person|phoneCall|dial ## Call somebody on the phone.|Starts a call ## a=name:person|contact_name|callee ## call
  {a}|phone {a}|give {a} a call|dial {a}|I want to speak to {a}|ring up {a}
invite_person|sendInvite ## Invite a person to an event.|Sends an invitation ## a=name:guest|invitee|person
  b=words:event|occasion|party ## invite {a} to {b}|send {a} an invitation to {b}|ask {a} to come to {b}|invite {a}
  for {b}
get_route|directions|routePlanner|navigate ## Plan a route between two places.|Gives directions ##
  a=place:from|start_place|origin_place b=place:to|end_place|goal_place ## how do I get from {a} to {b}|plan a route
  from {a} to {b}|navigate from {a} to {b}|give me directions from {a} to {b}|the way from {a} to {b}
get_distance|distanceBetween ## How far two places are apart.|Distance of two cities ##
  a=place:a_place|first_city|here b=place:b_place|second_city|there ## how far is it from {a} to {b}|what is the
  distance between {a} and {b}|distance from {a} to {b}|measure the distance from {a} to {b}
convert_units|unitConverter ## Convert a length or weight.|Converts units ## a=number:amount|how_many|quantity
  b=word:unit|from_unit|in c=word:other_unit|to_unit|wanted ## convert {a} {b} to {c}|how many {c} are {a} {b}|what
  are {a} {b} in {c}|change {a} {b} to {c}
get_holidays|holidayList ## List the public holidays of a country.|Holidays in a year ##
  a=place:country|state|nation b=minutes?:year|for_year ## which holidays are there in {a}|list the holidays of
  {a}|get the holidays in {a}|public holidays of {a}
get_plant|plantInfo|plant_care ## How to care for a plant.|Looks up a plant ## a=noun:plant|species|flower ## how do
  I care for a {a}|get me the care of the plant {a}|look up the plant {a}|find the plant {a}
check_domain|domainFree|whois ## Check whether a domain is free.|Who owns a domain ## a=word:domain|host_name|site
  ## is the domain {a} free|check the domain {a}|who owns {a}|whois {a}
log_meal|mealDiary|add_meal ## Log what was eaten.|Adds to the food diary ## a=food:food|eaten|what_eaten
  b=number?:calories|kcal ## log that I ate {a}|log {a} with {b} calories|I had {a}|add {a} to my food diary|write
  down that I ate {a}
start_workout|trainingPlan|exercise ## Start a workout.|Begins a training ## a=word:workout|sport|training
  b=minutes?:minutes|length_minutes ## start the workout {a}|start {b} minutes of {a}|begin the training {a}|I want
  to do {a} for {b} minutes
take_photo|snapshot|camera_shot ## Take a picture with a camera.|Makes a photo ## a=noun:camera|device|which_camera
  ## take a photo with the {a}|make a picture with the {a}|take a picture using the {a} camera|snap a photo on the
  {a}
roll_dice|dice|rollDie ## Roll dice.|Throws a die with some sides ## a=minutes:sides|faces|n ## roll a die with {a}
  sides|throw a dice with {a} sides|roll a {a} sided die
"""

HELD_OUT = """
search_flights|findFlights ## Find flights between two cities.|Looks for flights ## a=place:origin|departure
  b=place:destination|arrival c=date:date|departure_date ## find a flight from {a} to {b} on {c}|search flights
  from {a} to {b} for {c}
get_recipe|recipeFinder ## Find a recipe for a dish.|Looks for a recipe ## a=food:dish|meal ## find a recipe
  for {a}|get me the recipe of {a}
track_parcel|parcelTracker ## Track a parcel by its number.|Where a parcel is ##
  a=code:parcel_number|tracking_id ## track the parcel {a}|where is the parcel {a}
define_word|dictionary ## Define a word.|Gives the definition of a word ## a=word:term|lemma ## define the word
  {a}|give me the definition of {a}
set_thermostat|heatingControl ## Set the temperature of a room.|Controls the heating ## a=noun:zone|room_name
  b=minutes:degrees|target_temperature ## set the temperature in the {a} to {b} degrees|heat the {a} room to {b}
  degrees
transfer_money|payPerson ## Transfer money to a person.|Sends money ## a=number:amount_due|money
  b=name:payee|receiver ## transfer {a} to {b}|send the amount of {a} to {b}
count_lines|lineCounter ## Count the lines of a file.|Number of lines in a file ##
  a=path:document_path|target_file ## count the lines of {a}|how many lines are in {a}
rename_file|moveFile ## Rename a file.|Gives a file a new name ## a=path:old_path|source_path
  b=path:new_path|destination_path ## rename {a} to {b}|rename the file {a} to {b}
"""


def _parameter(source: Source, text: str) -> tuple[str, Parameter]:
    slot, _, rest = text.partition("=")
    kind, _, names = rest.partition(":")
    name, required, kind = source.any(names.split("|")), not kind.endswith("?"), kind.rstrip("?")
    if not source.held_out and source.chance(0.4):
        name = styled(source, *source.any(((name, source.plain()), (source.plain(), name))))
    if kind in ENUMS:
        return slot, Parameter(name, {"type": "string", "enum": ENUMS[kind]}, MAKES[kind], required)
    if kind in ("number", "minutes", "percent"):
        return slot, Parameter(name, {"type": source.any(("integer", "integer", "number"))}, MAKES[kind], required)
    if kind == "bool":
        return slot, Parameter(name, {"type": "boolean"}, MAKES[kind], required)
    return slot, string(source, name, MAKES[kind], required)


def _skill(source: Source, cells: list[str]) -> Skill:
    names, descriptions, parameters, wordings = cells
    slots = [_parameter(source, "=".join(p.split("=", 1))) for p in _slots(parameters)]
    name, description = source.any(names.split("|")), source.any(descriptions.split("|"))
    renamed = [_renamed(w, dict(slots)) for w in wordings.split("|")]
    if not source.held_out:
        name = other_name(source) if source.chance(0.5) else name
        renamed = [_from_description(source, description, slots)] if source.chance(0.3) else renamed
    return Skill(name, description, tuple(p for _, p in slots), tuple(renamed))


def other_name(source: Source) -> str:
    """A name that tells nothing: the description has to be read, and the name copied."""
    return styled(source, *(source.plain() for _ in range(source.any((1, 2, 2)))))


def _from_description(source: Source, description: str, slots: list[tuple[str, Parameter]]) -> str:
    """A request in the words of the description, the values in order behind any small words."""
    said = description.split(". ")[0].rstrip(".")
    said = " ".join(w for w in said.split() if w not in ("a", "an", "the", "of") or source.chance(0.6))
    used = [p for _, p in slots if p.required or source.chance(0.5)]
    return (said[0].lower() + said[1:]) + "".join(f" {small_word(source)} {{{p.name}}}" for p in used)


def small_word(source: Source) -> str:
    """A word or two that stand before a value."""
    words = ("for", "from", "to", "in", "of", "on", "at", "with", "by", "called", "named", "as", "and", "is")
    return source.any(words) if source.chance(0.75) else source.aside(2)


def _slots(text: str) -> list[str]:
    parts = text.split()
    return [p for p in parts if "=" in p]


def _renamed(wording: str, slots: dict[str, Parameter]) -> str:
    for slot, parameter in slots.items():
        wording = wording.replace("{" + slot + "}", "{" + parameter.name + "\0}")
    return wording.replace("\0", "")


def everyday_skill(source: Source) -> Skill:
    """A tool of an everyday kind; of other kinds in the evaluation."""
    return _skill(source, source.any(rows(HELD_OUT if source.held_out else TRAINING)))


def coding_skills(source: Source, count: int) -> list[Skill]:
    """Up to `count` of the tools that coding agents have, all of them about files, so that "file" tells nothing."""
    kinds = [cells for cells in rows(TRAINING) if cells[0].split("|")[0] in CODING]
    found: dict[str, Skill] = {}
    for cells in source.rng.sample(kinds, min(count, len(kinds))):
        one = _skill(source, cells)
        while one.name in found:
            one = _skill(source, cells)
        found[one.name] = one
    return list(found.values())


def reading_skill(source: Source) -> Skill:
    """The tool with which coding agents read a file."""
    return _skill(source, next(cells for cells in rows(TRAINING) if cells[0].split("|")[0] == CODING[0]))
