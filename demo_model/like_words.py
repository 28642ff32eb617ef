"""Words of like meaning: what a user says may stand in another word in the description of the tool that is meant.

A model of this size knows only the likenesses that it was shown. Of the pairs of a group a checksum keeps some out of
the training; their words are joined there by other words of the group alone.
"""

from functools import cache

from demo_model.source import is_held_out
from demo_model.table import choices

VERBS = """begin start launch initiate|stop end finish halt quit|buy purchase acquire obtain|sell vend offer
make create build produce|remove delete erase drop|show display present|find search seek locate
change edit modify alter|send deliver dispatch mail|fetch retrieve load get|tell inform notify alert
fix repair mend restore|check verify inspect examine|open unlock unseal|close shut lock|raise increase lift
lower reduce decrease cut|store save keep|join connect link attach|split divide separate|copy duplicate clone
move shift relocate|choose pick select|reserve book|speak say talk|write note record|read scan study
clean wash tidy|compute calculate evaluate|wait pause rest|drive steer ride|pay settle|lend loan
plan schedule arrange|cook prepare|throw toss|guess estimate|teach train instruct|help assist support
ask query question|answer reply respond|compare match contrast|measure gauge weigh|wrap pack"""
NOUNS = """picture photo image snapshot|car vehicle auto|house home building|street road avenue|town city village
film movie video|song track tune|talk conversation chat|message letter mail|mistake error fault bug
job work task duty|boss manager chief|friend companion mate|child kid|doctor physician medic|shop store market
food meal dish|price cost fee|money cash funds|bill invoice|trip journey tour travel|plane aircraft airplane
boat ship vessel|bike bicycle cycle|meeting appointment gathering|party celebration feast|weather forecast climate
clock watch timer|list overview table|file document paper|folder directory|program app application
screen display monitor|computer machine|phone telephone mobile|number figure amount|place location spot position
way route path|map chart|plant flower herb|animal beast creature|dog hound|garden yard park|wall fence
lamp light bulb|room chamber|bed couch|chair seat|coat jacket|shoe boot|manual handbook guide|story tale
joke gag|idea thought notion|rule law|test exam quiz|team group crew|user member account|news headlines
book novel|language tongue|part piece section|size dimension|speed pace velocity|noise sound"""

# what is done, and its noun
FORMS = """calculate calculation|translate translation|convert conversion|reserve reservation|create creation
invite invitation|explain explanation|describe description|navigate navigation|register registration
cancel cancellation|confirm confirmation|install installation|correct correction|connect connection
select selection|collect collection|inspect inspection|protect protection|produce production|reduce reduction
announce announcement|measure measurement|arrange arrangement|manage management|pay payment|ship shipment
treat treatment|assign assignment|remove removal|approve approval|deliver delivery|discover discovery
compare comparison|decide decision|divide division|revise revision|respond response|complain complaint
weigh weight|sell sale|choose choice|speak speech|inform information|observe observation|evaluate evaluation
paint painting|clean cleaning|book booking|park parking|train training|record recording|bill billing|draw drawing
print printing|wrap wrapping|load loading|mark marking|teach teaching|feed feeding|pack packing|test testing"""


@cache
def pairs(groups: str, held_out: bool) -> list[tuple[str, str]]:
    """A word for a description and another of its group for a request, of a split."""
    return [
        (one, other)
        for group in choices(groups)
        for one in group.split()
        for other in group.split()
        if one != other and is_held_out(f"{one} {other}") == held_out
    ]


@cache
def relatives(word: str) -> frozenset[str]:
    """All words of the groups that a word is in."""
    groups = [set(group.split()) for table in (VERBS, NOUNS, FORMS) for group in choices(table)]
    return frozenset(other for group in groups if word in group for other in group)


@cache
def is_noun(word: str) -> bool:
    """Whether the word is the noun of what is done."""
    return any(word == group.split()[1] for group in choices(FORMS))
