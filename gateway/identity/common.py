"""The passwords that anybody would try first.

A list of a few thousand leaked passwords (OWASP ASVS 6.2.4) mostly holds the same few hundred words again and again,
with a year or a sign behind them or an `@` for an `a`. So this asks for the pattern instead of the list: such a word
with decoration, a walk over the keyboard, a short unit repeated, a date. It costs a few kilobytes and catches what is
on no list yet, such as next year.
"""

from __future__ import annotations

import re

MAX_DECORATION = 5
"""Digits and signs around a common word that do not make it less common: `2024!`."""

_LEET = str.maketrans("4@83011!5$79", "aabeoiiisstg")
_EDGES = re.compile(r"^[\W\d_]*|[\W\d_]*$")
_REPEATED = re.compile(r"(.{1,4})\1+.{0,2}")

_RUNS = (
    "abcdefghijklmnopqrstuvwxyz",
    "01234567890",
    "qwertyuiop",
    "qwertzuiop",
    "azertyuiop",
    "asdfghjkl",
    "qsdfghjklm",
    "zxcvbnm",
    "yxcvbnm",
    "wxcvbn",
    "qazwsxedcrfvtgbyhnujmikolp",
    "1qaz2wsx3edc4rfv5tgb6yhn7ujm",
    "1q2w3e4r5t6y7u8i9o0p",
    "q1w2e3r4t5y6u7i8o9p0",
    "a1b2c3d4e5f6g7h8i9j0",
    "1a2b3c4d5e6f7g8h9i0j",
    "147258369",
    "159753",
    "963852741",
    "!@#$%^&*()",
)
_WALKS = frozenset(
    run[start : start + size]
    for line in _RUNS
    for run in (line, line[::-1])
    for size in (3, 4)
    for start in range(len(run) - size + 1)
)

WORDS = frozenset(
    """
    aaron abcd access account action adidas admin administrator adrian airborne airplane alabama alaska albert
    alejandro alexander alexandra alexis alfred alicia alison allison alpha amanda amateur amber america american
    anderson andrea andreas andrew angel angela angelica angels animal anthony antonio apollo apple apples april
    arizona arsenal arthur ashley asshole athena atlanta atlantis august austin australia autumn awesome babygirl
    backup badboy badger bailey banana bandit barbara barcelona barney baseball basket basketball batman baxter
    beautiful beauty beavis benjamin berlin bernard bigdaddy birthday biteme blackie blessed blink blizzard blonde
    blue bluebird bond bonnie booboo boomer boston bradley brandon brandy brazil brian britney brittany broncos
    brooklyn brown bubba bubbles buddy buffalo bulldog bullshit buster butter butterfly camaro cameron canada
    captain carlos carmen carolina caroline carpediem casper cassie catherine champion chance change changeit
    changeme charles charlie charlotte cheese chelsea cherry chester chevrolet chicago chicken chocolate chris
    christian christina christine christmas christopher claudia cocacola coffee colorado compaq computer connor
    control cookie cookies cooper corvette cowboy cowboys creative cricket cristina crystal daddy dakota dallas
    daniel daniela danielle darkness david december default demo denise dennis denver desktop destiny dexter diablo
    diamond diamonds dickhead diesel digital discover disney doctor dolphin dolphins domino donald donkey dragon
    dragons dreamer dreams drowssap eagle eagles edward einstein elephant elizabeth eminem england enigma enter
    ericsson everton example explorer facebook falcon family fantasy fender ferrari fireman firewall fish fishing
    flamingo flower flowers fluffy football forest forever france francis francisco frank franklin freddy free
    freedom friday friend friends friendster fuckoff fucku fuckyou gabriel galaxy gandalf garcia garfield gateway
    gemini genesis george germany ginger girls goddess godzilla golden goldfish golfer google gordon green gregory
    guest guitar hannah happy harley harrison harry hawaii heather heaven hello hellokitty helpme hercules hockey
    holiday hollywood home hotdog hotmail hottie house howard hummer hunter hunting iceman iloveme iloveu iloveyou
    indian indiana infinity inside instagram install internet ireland ironman isabella isabelle iverson jackass
    jackie jackson jacob jaguar james january japan jasmine jason jasper jeffrey jennifer jeremy jerome jessica
    jessie jesus jesuschrist john johnny johnson jonathan jordan joseph joshua julian juliana juliet july june
    junior jupiter justice justin karina katherine kathleen katie kawasaki kelly kenneth kevin killer kimberly king
    kitty knight kristen lacoste lakers lasvegas laura lauren lawrence legend letmein liberty lincoln linkedin lisa
    little liverpool livestrong login london lonely looking loser loulou love lovely lover lovers loveyou lucky
    madison maggie magic manager manchester margaret maria marie marina marine marines mark marlboro marley martin
    martina master matrix matthew maverick maxwell melanie melissa mercedes mercury merlin metallica mexico michael
    michelle michigan mickey microsoft midnight miguel minecraft mitchell mommy monday money monica monkey monster
    montana montreal moon morgan mother motorola mountain mozart muffin murphy music mustang myspace naruto nascar
    natalie natasha nathan network newpass newyork nicholas nicole nintendo nirvana nissan nothing november october
    office oliver olivia online orange orlando packers pantera panther paradise parker pass passion passord passport
    passw passwd password passwort patches patricia patrick peaches peanut pearljam penguin pepper peter phantom
    phoenix picture pirate pizza platinum player please pokemon police pookie popcorn porsche portugal power
    precious preston prince princess private public pumpkin purple qwer qwert qwerty rabbit rachel raiders rainbow
    ranger rangers raymond rebecca redskins remember ricardo richard robert roberto rocket rockstar rocky ronaldo
    root rosebud runner russia sabrina sailor salasana samantha samson samsung samuel sandra sarah saturday scarface
    school scooby scooter scorpio scorpion scotland scott secret security september sergey server service sexy
    shadow shannon sharon sierra silver simple simpson simpsons skywalker slayer slipknot smokey snickers snoopy
    snowball snowboard soccer softball sophie spanky sparky spartan spencer spider spiderman spirit spring stanley
    star startrek starwars steelers stella stephanie stephen steve steven strawberry student stupid success sugar
    summer sunday sunflower sunset sunshine super superman superstar support suzuki swimming sydney sysadmin system
    tamara taylor teacher temp temporary tennis tequila teresa test tester testing testtest texas theman thomas
    thunder thursday tiffany tiger tigers tigger timothy tinkerbell titanic tomcat toyota training travis trinity
    trouble trustno trustnoone tucker tuesday turtle tweety twitter united unknown user username valentina valentine
    vampire vanessa veronica victor victoria victory viking vincent virginia volleyball voyager walter warcraft
    warrior webmaster wednesday welcome westside whatever wildcats william williams willow wilson windows winner
    winston winter wizard wolf wolfpack wolverine xavier yamaha yankees yellow zachary zaq zxcvbn
    """.split()
)


def is_common(password: str) -> bool:
    """Whether `password` (case folded) is a common word with decoration, a keyboard walk, a repeated unit or a date."""
    if password.isdecimal() and len(password) <= 10:
        return True
    if _REPEATED.fullmatch(password) or _is_walk(password):
        return True
    plain = password.translate(_LEET)
    bare = _EDGES.sub("", password)
    return any(
        len(password) - len(word) <= MAX_DECORATION and _is_word(word)
        for word in (bare, bare.translate(_LEET), _EDGES.sub("", plain))
    )


def _is_word(word: str) -> bool:
    """A common word, two of them, one and a walk, or a walk."""
    return (
        word in WORDS
        or _is_walk(word)
        or any(word[:cut] in WORDS and (word[cut:] in WORDS or _is_walk(word[cut:])) for cut in range(3, len(word) - 2))
    )


def _is_walk(password: str) -> bool:
    """Whether all of it is pieces, three or more characters long, of lines on the keyboard."""
    at = 0
    while at < len(password):
        if password[at : at + 3] not in _WALKS:
            return False
        at += 3
        while password[at - 2 : at + 1] in _WALKS and len(password[at - 2 : at + 1]) == 3:
            at += 1
    return bool(password)
