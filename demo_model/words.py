"""The word pools that slots are filled from; a checksum decides which words only the evaluation may use."""


def _words(text: str) -> list[str]:
    return text.split()


NAMES = _words("""Ada Ben Carla Dmitri Elif Farid Greta Hugo Ines Jonas Kenji Lena Mateo Nadia Oskar Petra Quentin
Rosa Samir Tara Umar Vera Wanda Xenia Yusuf Zoë José Łukasz Björn Çelik Éloïse François Gülay
Håkon Íñigo Jürgen Kärt Márta Nuño Øyvind Paweł Renée Søren Şule Thérèse Ülle Žofia Anaïs Chloé
Aoife Siobhán Ngozi Chidi Amara Kwame Thandi Sipho Aiko Haruto Mei Wei Priya Arjun Lakshmi Ravi
Fatima Omar Layla Noor Ivan Olga Boris Svetlana Marek Katya Ilse Pieter Sanne Luca Giulia Marco
Elena Diego Lucía Camila Tiago Beatriz Rafael Emma Liam Olivia Noah Mia Ethan Ava Lucas Sophie
Max Paul Anna Clara Felix Ida Karl Lotte Moritz Nils Otto Rita Stefan Tom Uwe Viktor Wim Yara
Zara Sam Alex Robin Kim Jo Maria Peter John Alice Bob Carol Dave Eve Frank Grace Heidi Ivy Jack
Kate Leo Mary Nina Oliver Pam Quinn Ruth Steve""")

SURNAMES = _words("""Novak Garcia Müller Rossi Silva Kowalski Andersson Nakamura Okafor Haddad Petrov Dubois Jansen
Kim Patel Nguyen Smith Brown Jones Taylor Walker Hughes Becker Vogel Lindqvist Castillo Moreau
Bianchi Horvath Popescu""")

CITIES = _words("""Oslo Paris Berlin Madrid Rome Lisbon Vienna Prague Warsaw Dublin Athens Helsinki Stockholm
Copenhagen Brussels Amsterdam Zürich Geneva Munich Hamburg Köln Lyon Nice Porto Seville Bilbao
Milan Naples Turin Kraków Gdańsk Wrocław Brno Budapest Bucharest Sofia Belgrade Zagreb Tallinn
Riga Vilnius Kyiv Istanbul Ankara Cairo Tunis Dakar Accra Lagos Nairobi Kampala Harare Lusaka
Delhi Mumbai Chennai Dhaka Hanoi Bangkok Manila Jakarta Seoul Tokyo Osaka Kyoto Taipei Beijing
Perth Sydney Hobart Auckland Lima Quito Bogotá Caracas Santiago Montevideo Havana Toronto Ottawa
Montréal Chicago Boston Denver Austin Seattle Portland Dallas Houston Atlanta Miami Bergen Aarhus
Malmö Turku Tampere Graz Linz Bern Basel London Leeds Bristol Cardiff Glasgow Belfast York Bath
Oxford Cambridge Reykjavík""")

NOUNS = _words("""invoice ticket order parcel lamp sensor camera garden recipe playlist song album movie book
library shelf robot drone battery engine server database table column branch commit deployment
container bucket queue token session user account profile contact group channel message comment
review rating photo gallery album poster banner coupon discount voucher booking flight train
hotel room seat menu dish table customer supplier contract report chart dashboard metric alarm
timer reminder meeting event calendar task project milestone sprint issue label backup snapshot
archive folder document page draft template survey quiz lesson course student teacher grade exam
patient doctor appointment medicine dose plant tree flower seed harvest tractor barn horse cow
sheep dog cat bird aquarium window door curtain heater fan boiler valve pump pipe tank bridge
tunnel road bus tram bike scooter car truck ship ferry harbour cargo crate pallet warehouse shop
store basket cart price tax salary budget loan payment receipt refund wallet coin bond stock
share fund tariff licence permit visa passport badge key lock safe vault ring watch clock mirror
chair sofa carpet kettle oven fridge spoon plate cup bottle candle blanket pillow jacket shirt
shoe glove helmet tent rope ladder hammer drill screw nail paint brush canvas sculpture museum
theatre concert festival""")

ADJECTIVES = _words("""new old small large red blue green quick slow quiet loud warm cold dark bright fresh dry wet open
closed active idle public private local remote global daily weekly monthly annual urgent final
first last spare main hidden shared broken clean empty full heavy light narrow wide round square
simple complex cheap rare common gentle brave clever""")

VERBS = _words("""create delete update find open close start stop send fetch list add remove rename move copy check
show reset schedule cancel book order print scan upload download export import merge split lock
unlock pause resume archive restore publish rate tag assign approve reject count measure
calibrate paint polish repair inspect water feed pack ship weigh sort mix heat cool fold wrap
register subscribe enable disable install inflate rotate mount drain sharpen label stamp""")

PARAMETERS = _words("""title name label id code status priority color size amount quantity count limit level speed
duration distance weight height width depth volume temperature humidity pressure price cost
budget owner author recipient sender subject body text note comment summary category type kind
mode format language region country city street address room floor zone date time day month year
start end deadline path file folder url host port user email phone channel topic tag version
branch model brand serial material texture flavour shape angle offset page row column index key
value token reason message target source destination origin route carrier supplier customer
account currency rate score rank group team project task""")

COLOURS = _words("""red blue green yellow purple orange pink black white brown grey turquoise violet silver gold
crimson indigo teal maroon beige""")

ANIMALS = _words("""cat dog horse rabbit parrot turtle fox owl otter badger hedgehog dolphin whale tiger lion bear
wolf eagle falcon penguin koala panda lizard frog goat sheep hamster ferret""")

FOODS = _words("""pizza pasta sushi curry soup salad bread cheese pancakes dumplings tacos risotto lasagne noodles
omelette falafel hummus goulash paella ramen stew porridge waffles chocolate""")

JOBS = _words("""nurse teacher baker pilot farmer carpenter painter lawyer plumber chef librarian engineer
gardener tailor dentist welder musician journalist architect electrician sailor chemist translator""")

HOBBIES = _words("""chess tennis painting sailing cycling knitting baking hiking climbing fishing dancing swimming
reading gardening pottery photography juggling archery origami running""")

LANGUAGES = _words("""English French German Spanish Italian Portuguese Dutch Polish Swedish Danish Finnish Turkish
Greek Japanese""")

COMMON = _words("""about above after again against all almost along already also although always among another any
anything around ask away back base because become before began begin behind being below best
better between big both bring build built but by call came can case change choose clear close
come complete consider contain control could current cut deep default define depend describe
detail did different direct do does done down draw during each early easy either else empty end
enough enter entire environment even ever every exact example except execute exist expect explain
fact fail false far fast feel few field file find first follow following force form found four
free from front full function further general get give given go going gone good great had half
hand happen hard has have he help her here high him his hold home hope hour how however idea if
important include information input inside instead instruction into issue its itself just keep
kind knew know known large last late later learn least leave left less let letter level life like
likely line list little live local long look lost low machine made main major make many mark
matter may maybe mean means might mind minute miss more most move much must name near necessary
need never new next night no none nor not note nothing now number object of off offer often old
on once one only open or order other our out output over own page part pass past pattern people
perhaps person place plan play please point possible power present problem process produce
program project provide public put question quick quite rather reach read ready real really
reason receive recent record remain remember remove repeat replace report request require rest
result return right rule run safe said same save say second see seem seen self send sent sentence
separate set several shall she short should show side similar simple since single situation six
small so some something soon sort source space special stand start state step still stop store
string strong such support sure system take talk task tell ten test text than thank that the
their them then there these they thing think third this those though three through time to today
together told too tool top total toward true try turn two type under understand unless until up
upon use used user using usual value very via view wait want was watch way we week well went were
what when where whether which while white who whole whose why will with within without word work
world would write wrong year yes yet you young your yourself must prefer avoid ensure verify
never always respond answer concise directory repository command shell terminal editor code
python javascript rust async await class import return error warning message json schema
parameter argument optional required""")

ONSETS = _words("""b c d f g h j k l m n p r s t v w z br ch cl cr dr fl fr gl gr kl kr pl pr sh sk sl sp st str th
tr tw vl zh qu x y""")
NUCLEI = _words("a e i o u a e i o u ai au ea ee ei ia ie io oa oo ou ua y")
ACCENTED = _words("á é í ó ú ä ö ü å ø æ ë ï ñ ç ł ś ž š ř ő ğ â ê ô à è ã õ")
CODAS = ["", "", "", "", "n", "r", "s", "l", "m", "t", "k", "d", "x", "th", "nd", "rt", "ng", "st", "ll", "ck"]
OTHER_SCRIPTS = [
    "αβγδεζηθικλμνοπρστυφω",
    "абвгдежзийклмнопрстуфхцчшэюя",
    "春夏秋冬山川花月星空海林田中村木青白",
    "あいうえおかきくけこさしすせそたちつてと",
]
EXTENSIONS = _words("md txt py json csv toml yaml log html css js ts rs go cfg ini sh")
FOLDERS = _words("""src docs notes data tests lib assets scripts tmp work home projects build config app reports
drafts images""")
