"""Adjective-noun pairs as a vocabulary for images: a SentiBank (Borth et al. 2013) without trained detectors.

Each pair becomes a sentence, and each sentence a direction in the space that a CLIP network shares between images and
texts (Radford et al. 2021). The value of a pair is the cosine between the image and its sentence. The adjectives are
those of Plutchik's wheel (1980): eight emotions in three intensities, as pictures show or call them forth.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

ADJECTIVES = {
    "joy": ("serene", "joyful", "ecstatic"),
    "trust": ("accepting", "trusting", "admiring"),
    "fear": ("apprehensive", "fearful", "terrified"),
    "surprise": ("distracted", "surprised", "amazed"),
    "sadness": ("pensive", "sad", "grieving"),
    "disgust": ("bored", "disgusted", "loathing"),
    "anger": ("annoyed", "angry", "enraged"),
    "anticipation": ("interested", "expectant", "vigilant"),
}
"""By emotion of the wheel, its mild, plain and intense form."""

NOUNS = {
    "people": "baby,child,girl,boy,woman,man,couple,family,crowd,friends,soldier,worker,athlete,dancer,patient,clown",
    "bodies": "face,eyes,smile,tears,hands,embrace,kiss,gesture,body,silhouette,portrait,mask,tattoo,wound,bones,grave",
    "animals": "dog,cat,horse,bird,fish,snake,spider,insect,butterfly,lion,bear,wolf,shark,monkey,puppy,pet",
    "nature": "sky,sunset,storm,sea,beach,lake,river,mountain,forest,tree,flower,garden,desert,snow,fire,night",
    "places": "city,street,house,room,kitchen,bed,school,hospital,church,prison,tower,bridge,road,park,shop,stage",
    "things": "car,train,ship,plane,bicycle,gun,knife,book,phone,screen,toy,clothes,shoes,jewellery,flag,money",
    "food": "meal,cake,fruit,meat,bread,coffee,beer,wine,dessert,breakfast,restaurant,market,feast,cup,garbage,smoke",
    "events": "wedding,party,concert,game,holiday,journey,funeral,war,crash,flood,protest,parade,crime,riot,hunger,win",
}
"""By field, sixteen nouns that news, photo sharing and emotion corpora show often."""

PROMPT = "a photo of {adjective} {noun}"


@cache
def pairs() -> tuple[str, ...]:
    """Return the names of all pairs, such as ``"serene lake"``; nouns run fastest."""
    adjectives = [word for forms in ADJECTIVES.values() for word in forms]
    nouns = [word for field in NOUNS.values() for word in field.split(",")]
    return tuple(f"{adjective} {noun}" for adjective in adjectives for noun in nouns)


def sentences() -> list[str]:
    """Return one sentence per pair, in the order of `pairs`."""
    return [PROMPT.format(adjective=one.split()[0], noun=one.split()[1]) for one in pairs()]


def vocabulary() -> dict[str, str]:
    """Return what a passport says of the words: the prompt, and a digest of all sentences."""
    return {"prompt": PROMPT, "sentences_sha256": hashlib.sha256("\n".join(sentences()).encode()).hexdigest()}


def directions(model: Any, architecture: str, texts: list[str], *, batch_size: int = 256) -> torch.Tensor:
    """Return the directions of sentences.

    Shapes: returns (n_texts, n_features) float32.
    """
    import open_clip
    import torch
    from tqdm import tqdm

    tokens = open_clip.get_tokenizer(architecture)(texts)
    tokens = _shorten(model, tokens)
    found = []
    with torch.inference_mode():
        for part in tqdm(tokens.split(batch_size), desc="concepts", unit="batch", leave=False, delay=2, disable=None):
            found.append(model.encode_text(part, normalize=True).float())
    return torch.cat(found).clone()


def _shorten(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Cut off the padding that is common to all sentences: a pass then costs a sixth.

    The text tower looks back only, so what stands behind the end mark changes nothing; other towers keep it.
    """
    import torch

    looks_back = getattr(model, "text_pool_type", None) == "argmax" and getattr(model, "attn_mask", None) is not None
    if not looks_back:
        return tokens
    length = int(tokens.argmax(dim=1).max()) + 1  # the end mark has the largest number
    model.positional_embedding = torch.nn.Parameter(model.positional_embedding.data[:length], requires_grad=False)
    model.attn_mask = model.attn_mask[:length, :length]
    return tokens[:, :length]
