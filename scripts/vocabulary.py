"""The closed vocabularies of the catalog: every term with its one-line definition, in one place.

The validator, the JSON Schema, the command line's filters and the site's taxonomy pages all read these tables. A term is
written exactly as it stands here; the attributes of `threat_model.Knowledge` are the knowledge terms with `_` for `-`.
"""

from collections.abc import Mapping
from types import MappingProxyType

from scripts.venues import VENUE

KIND = {
    "attack": "Rebuilds private training or input data, or attributes of it, from a model, its outputs, gradients or vectors.",
    "defense": "Lowers what an inversion attack recovers, at a stated price in utility.",
    "evaluation": "Measures attacks, defenses or metrics on common ground.",
    "theory": "Defines or bounds what can be recovered.",
    "survey": "Orders and reviews the literature.",
    "tool": "Software that runs or measures attacks and defenses.",
    "background": "Work outside the field proper on which methods of the field are built.",
}

SETTING = {
    "classifier": "A trained classifier is exposed; the adversary rebuilds representatives or instances of its training data.",
    "tabular": "A model over records with named attributes; the adversary infers a sensitive attribute or a record.",
    "graph": "A model over a graph or its node embeddings; the adversary rebuilds edges, attributes or structure.",
    "embedding": "Vectors made by an encoder are exposed; the adversary rebuilds the text, image or attribute behind them.",
    "language-model": "A generative language model is exposed; the adversary extracts training text or hidden prompts.",
    "gradient": "Gradients or updates of federated or distributed learning are exposed; the adversary rebuilds the batch.",
    "split": "A network is cut between two parties; the adversary sees the activations that cross the cut.",
    "model-update": "Two versions of a model are exposed (online learning, unlearning); the adversary rebuilds what changed.",
    "synthetic-data": "Samples of a generative model are released; the adversary rebuilds records behind them.",
    "any": "Not tied to one setting.",
}

MODALITY = {
    "image": "Pictures.",
    "text": "Natural language.",
    "graph": "Nodes and edges.",
    "tabular": "Records with named attributes.",
    "audio": "Speech and other sound.",
    "point-cloud": "Sets of points in space.",
    "recommender": "Users, items and their interactions.",
    "any": "Independent of the kind of data.",
}

ACCESS = {
    "white-box": "Architecture and weights, so logits, activations and gradients through the model.",
    "scores": "The model's output values for chosen inputs: class probabilities or a predicted number; no gradients.",
    "label-only": "Only the predicted class of chosen inputs.",
    "gradients": "The update that a client computed on its batch, with the model it was computed on.",
    "features": "Intermediate activations of a network cut between two parties.",
    "embeddings": "Vectors made by an encoder of texts, images or nodes.",
    "explanations": "Saliency maps or other explanations that come with predictions.",
    "logprobs": "Log-probabilities of tokens given their prefix.",
    "text": "Generated text only.",
    "updates": "Two or more versions of a model, or of its outputs, before and after an update.",
    "samples": "Samples of a released generative model or a synthetic data set.",
}

GOAL = {
    "class-representative": "An input that shows what a whole class (say, a person) looks like.",
    "instance": "One particular training or input example.",
    "attribute": "A sensitive attribute of a known person or record.",
    "property": "A property of the whole training set.",
    "structure": "Edges or sub-graphs of a private graph.",
    "text": "Words of a private text, in order or as a set.",
    "label": "Labels of a private batch.",
    "membership": "Whether a record was in the training data (a building block of some attacks here).",
    "visualization": "Understanding of a network; the root of many attacks, with no private data in view.",
}

KNOWLEDGE = {
    "public-images": "Images of the same kind as the private ones, of other people or classes.",
    "num-classes": "How many classes the target tells apart.",
    "class-names": "What the classes stand for, such as the names of people.",
    "image-shape": "Size, channels and value range of an input image.",
    "blurred-image": "A blurred or masked picture of the victim.",
    "confidence": "The score that the model gave to the victim's own record.",
    "model-architecture": "The architecture of the target where its weights are hidden.",
    "batch-size": "How many examples the observed update was computed on.",
    "labels": "Labels of the examples to be rebuilt.",
    "batchnorm-statistics": "Running statistics of the target's normalisation layers.",
    "marginals": "Marginal distribution of each attribute in the population.",
    "non-sensitive-attributes": "The victim's other attributes.",
    "outcome": "The value that the model predicts, as truly observed for the victim.",
    "error-statistics": "How often the model errs, as a confusion matrix or a standard error.",
    "attribute-domain": "The values that the sensitive attribute can take.",
    "public-records": "Records of the same form about other people.",
    "node-features": "Attributes of the graph's nodes.",
    "node-labels": "Labels of the graph's nodes.",
    "edge-density": "How many edges the private graph has.",
    "public-graph": "A graph of the same kind as the private one, or a part of it.",
    "public-texts": "Texts of the same kind as the private ones, of other people.",
    "public-language-model": "A language model trained on public text.",
    "encoder-queries": "Free use of the same encoder on texts or images of the adversary's own.",
    "client-weights": "Architecture and weights of the client part of a split network.",
    "client-queries": "Activations that the client part gives for inputs of the adversary's own.",
    "secret-format": "The format of the secret: its fixed words and the range of its random part.",
    "prefix": "A prefix of the private text.",
    "prompts": "Prompts of the adversary's own choosing.",
    "random-seed": "The randomness of training, such as the initial weights.",
}

ADVERSARY = {
    "external": "Anyone who can query or who has obtained the model.",
    "honest-but-curious-server": "The server of a protocol, which follows it and looks.",
    "malicious-server": "The server of a protocol, which also changes what it sends.",
    "client": "A participant of the protocol.",
    "third-party": "Somebody who obtains stored or transmitted vectors, activations or updates.",
    "insider": "Somebody at the model's owner.",
    "provider": "The service that runs inference for its users.",
}

APPROACH = {
    "optimization": "Searches input or latent space at attack time for what explains the observation.",
    "training": "Trains a model that maps observations to private data.",
    "analytic": "Solves for the private data in closed form.",
    "search": "Enumerates or ranks candidates by the observation.",
    "prompting": "Makes a generative model say what it has memorised.",
    "training-time-defense": "Changes how the model is trained.",
    "inference-time-defense": "Changes what a trained model returns or exposes.",
    "protocol-defense": "Changes what parties of a protocol exchange.",
}

TECHNIQUE = {
    "gradient-descent": "First-order optimisation of the input or a latent code.",
    "quasi-newton": "Second-order information by L-BFGS or the like.",
    "zeroth-order": "Optimisation from outputs alone, by sampling directions.",
    "evolutionary-search": "A population of candidates that is mutated and selected.",
    "reinforcement-learning": "A policy learnt from the model's answers as reward.",
    "gan-prior": "A generative adversarial network trained on public data.",
    "conditional-gan": "A class-conditional generative adversarial network as the prior.",
    "style-gan-prior": "A style-based generator and its intermediate spaces.",
    "diffusion-prior": "A diffusion model as the prior.",
    "flow-prior": "A normalising flow as the prior.",
    "vae-prior": "A variational auto-encoder as the prior.",
    "language-model-prior": "A language model as the prior over texts.",
    "image-prior": "Hand-made image statistics such as total variation or norms.",
    "variational-inference": "A distribution over the private data is fitted, not a point.",
    "map-estimation": "Maximum a-posteriori over discrete values.",
    "inversion-model": "A network trained to map outputs back to inputs.",
    "surrogate-model": "A stand-in for the target, trained on its answers.",
    "model-ensemble": "Several models attacked or used at once.",
    "feature-matching": "Matching internal statistics or activations.",
    "gradient-matching": "Matching the gradient of a candidate to the one observed.",
    "label-inference": "Labels read off gradients or outputs.",
    "linear-leakage": "Inputs read off the gradients of linear layers.",
    "malicious-parameters": "Weights or architectures changed so that updates leak.",
    "sequence-decoding": "Text generated token by token from the observation.",
    "iterative-correction": "A hypothesis corrected in rounds by comparing observations.",
    "graph-autoencoder": "A graph auto-encoder that smooths or rebuilds adjacency.",
    "projected-gradient": "Gradient steps followed by a projection onto allowed values.",
    "similarity-ranking": "Pairs ranked by similarity of features or outputs.",
    "canary-exposure": "Planted secrets whose rank among alternatives is measured.",
    "memorization": "Verbatim recall by an over-fitted or large model.",
    "membership-inference": "Candidates filtered by whether they were trained on.",
    "poisoning": "Training data that the adversary planted.",
    "differential-privacy": "Noise calibrated to sensitivity.",
    "information-bottleneck": "A bound on the information that outputs or features keep about inputs.",
    "adversarial-training": "Training against a simulated adversary.",
    "adversarial-noise": "Outputs moved so that an adversary's model fails.",
    "label-smoothing": "Soft training targets, with positive or negative factor.",
    "output-perturbation": "Noise, rounding or truncation of outputs.",
    "gradient-perturbation": "Noise, pruning or quantisation of gradients.",
    "feature-perturbation": "Noise, dropout or masking of activations.",
    "transfer-learning": "Layers trained on other data and frozen.",
    "secure-aggregation": "Only sums over parties are revealed.",
    "encryption": "Computation on encrypted data.",
    "data-augmentation": "Training on transformed, mixed or synthetic data.",
    "architecture-change": "Layers chosen or removed because they leak.",
    "deduplication": "Repeated training text removed.",
    "visualization": "Images made to show what units or layers respond to.",
    "feature-inversion": "An image rebuilt from the activations of a layer.",
}

RELATION = {
    "extends": "Builds on the other paper's method.",
    "compares_with": "Measures itself against the other paper's method.",
    "breaks": "Defeats the other paper's defense.",
    "defends_against": "Lowers what the other paper's attack recovers.",
    "surveys": "Reviews the other paper.",
}

VOCABULARIES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "kind": KIND,
        "setting": SETTING,
        "modality": MODALITY,
        "access": ACCESS,
        "goal": GOAL,
        "knowledge": KNOWLEDGE,
        "adversary": ADVERSARY,
        "approach": APPROACH,
        "technique": TECHNIQUE,
        "venue": VENUE,
        "relation": RELATION,
    }
)
