"""A few sentences, so that everything runs without a download; written for this, and far too few to show anything."""

_GOOD_FILMS = """\
a warm and funny film with a wonderful cast
the best comedy of the year, clever and full of heart
a moving story, beautifully told
great acting and a brilliant script
i loved every minute of this charming film
an exciting adventure with superb effects
a delightful surprise, fresh and witty
the director tells a touching story with great skill
a gripping thriller with a clever ending
the music is wonderful and the cast is superb
funny, smart and full of charm
a beautiful film that stays with you
brilliant performances make this drama a joy
a fresh and exciting take on an old story
the script is witty and the acting is excellent
an excellent film for the whole family
a powerful drama with a perfect ending
the funniest comedy i have seen in years
superb direction and a moving performance by the lead
a charming romance with real heart
the effects are great and the story is gripping
a clever script and a cast to match
a joy from beginning to end
wonderful music, beautiful pictures, a perfect evening
touching, honest and very well acted
an honest and powerful portrait of a family
the lead gives an excellent performance
a smart thriller that never loses its pace
full of life, humour and warmth
a great story told with skill and love
the children loved it and so did i
one of the finest films of the decade
a witty and elegant comedy
beautifully shot and perfectly acted
an inspiring story with a superb lead
exciting, funny and surprisingly touching
a fine cast in a fine film
the ending is perfect and deeply moving
clever, warm and never dull
a triumph for its young director"""

_BAD_FILMS = """\
a dull and lifeless film with a weak cast
the worst comedy of the year, stupid and not funny
a boring story, badly told
terrible acting and an awful script
i hated every minute of this tedious film
a tired adventure with cheap effects
a bitter disappointment, stale and silly
the director ruins a good story with bad taste
a slow thriller with a stupid ending
the music is awful and the cast is wasted
dull, silly and full of holes
an ugly film that you want to forget
wooden performances make this drama a bore
a stale and predictable copy of an old story
the script is lazy and the acting is poor
a poor film that no family needs
a weak drama with a ridiculous ending
the least funny comedy i have seen in years
clumsy direction and a wooden performance by the lead
a lifeless romance without any heart
the effects are cheap and the story is a mess
a lazy script and a cast that does not care
a bore from beginning to end
awful music, ugly pictures, a wasted evening
false, loud and very badly acted
a shallow and false portrait of a family
the lead gives a terrible performance
a silly thriller that never finds its pace
empty, cold and without humour
a bad story told without skill or love
the children hated it and so did i
one of the worst films of the decade
a stupid and tasteless comedy
badly shot and poorly acted
a tedious story with a weak lead
boring, loud and surprisingly stupid
a poor cast in a poor film
the ending is ridiculous and deeply annoying
predictable, cold and always dull
a failure for its young director"""

# Reviews of kettles and the like; what belongs to one review stands in one document.
_PRODUCTS = """\
1	positive	a great kettle, fast and quiet
1	positive	the handle is excellent and it looks beautiful
2	negative	the lid broke after a week
2	negative	terrible quality, i want my money back
3	positive	this toaster works perfectly
3	positive	easy to clean and well made
3	negative	the cable is too short and feels cheap
4	negative	an awful blender, loud and weak
4	negative	it stopped working and the service was poor
5	positive	i love this coffee machine
5	positive	excellent coffee and a perfect size
6	negative	a complete waste of money
6	negative	it leaks and smells awful
6	positive	the colour is beautiful
7	positive	a wonderful little oven, easy to use
7	positive	great value and superb quality
8	negative	the buttons are poor and the display is useless
8	negative	very disappointed, it broke at once
9	positive	my family loves it, works great
9	positive	a joy to use and very quiet
10	negative	cheap plastic and a bad smell
10	negative	the worst kettle i have bought
11	positive	fast delivery and an excellent product
11	negative	but the manual is terrible
12	negative	it burns everything, a stupid design
12	positive	the knife set is superb"""


def _alternating(good: str, bad: str) -> tuple[str, ...]:
    """Lines of document, label and text, each sentence a document of its own."""
    pairs = zip(good.splitlines(), bad.splitlines(), strict=True)
    texts = [row for g, b in pairs for row in (("positive", g), ("negative", b))]
    return tuple(f"{i}\t{label}\t{text}" for i, (label, text) in enumerate(texts))


DOMAINS = {
    "embedded": _alternating(_GOOD_FILMS, _BAD_FILMS),
    "embedded_products": tuple(_PRODUCTS.splitlines()),
}
