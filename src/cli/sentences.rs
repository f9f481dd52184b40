//! The demo's sample: plain sentences, each with a topic; job advertisements also with their hourly wage in dollars.

/// One sentence of the sample.
pub struct Sentence {
    /// Name of the element.
    pub id: &'static str,
    /// What it is about.
    pub topic: &'static str,
    /// Hourly wage, for jobs.
    pub wage: Option<u32>,
    /// The sentence.
    pub text: &'static str,
}

const fn plain(id: &'static str, topic: &'static str, text: &'static str) -> Sentence {
    Sentence { id, topic, wage: None, text }
}

const fn job(id: &'static str, wage: u32, text: &'static str) -> Sentence {
    Sentence { id, topic: "jobs", wage: Some(wage), text }
}

/// All of them.
pub static SENTENCES: &[Sentence] = &[
    job("job:1", 15, "Warehouse worker wanted, we pay 15 dollars per hour"),
    job("job:2", 11, "Kitchen help for weekends, the pay is 11 dollars an hour"),
    job("job:3", 18, "Night nurse in a hospital, salary of 18 dollars for every hour worked"),
    job("job:4", 12, "Dog walker in the city park, earn 12 dollars hourly"),
    job("job:5", 22, "Electrician with a licence, hourly rate from 22 dollars"),
    job("job:6", 13, "Cashier at a supermarket, minimum wage of 13 dollars an hour"),
    plain("food:1", "food", "A thick soup of lentils and carrots warms you on a winter evening"),
    plain("food:2", "food", "Fresh bread needs flour, water, salt and a lot of patience"),
    plain("food:3", "food", "Grilled fish with lemon is ready in ten minutes"),
    plain("food:4", "food", "The cake is baked with dark chocolate and butter"),
    plain("food:5", "food", "Strawberries taste best right from the garden"),
    plain("animal:1", "animals", "The cat sleeps on the windowsill all afternoon"),
    plain("animal:2", "animals", "Wolves hunt in packs and raise their young together"),
    plain("animal:3", "animals", "A hummingbird beats its wings fifty times a second"),
    plain("animal:4", "animals", "Whales sing to each other across whole oceans"),
    plain("animal:5", "animals", "Our puppy has eaten another pair of shoes"),
    plain("travel:1", "travel", "The night train to the coast leaves from platform four"),
    plain("travel:2", "travel", "Our flight was delayed for six hours by a snowstorm"),
    plain("travel:3", "travel", "A narrow path leads through the mountains to a small lake"),
    plain("travel:4", "travel", "The hotel room has a view of the harbour and its boats"),
    plain("health:1", "health", "The doctor prescribed an antibiotic against the infection"),
    plain("health:2", "health", "Half an hour of walking every day is good for the heart"),
    plain("health:3", "health", "She broke her arm when she fell from the bicycle"),
    plain("health:4", "health", "Sleep helps the brain to remember what it has learned"),
    plain("money:1", "money", "The central bank raised interest rates for the third time"),
    plain("money:2", "money", "Please pay the invoice within thirty days"),
    plain("money:3", "money", "House prices in the capital have doubled in ten years"),
    plain("money:4", "money", "He lost all his savings when the company went bankrupt"),
    plain("tech:1", "technology", "The new processor does twice the work with half the electricity"),
    plain("tech:2", "technology", "A bug in the software made the web site crash at midnight"),
    plain("tech:3", "technology", "Keep a copy of your files on a second disk"),
    plain("tech:4", "technology", "The robot learned to fold shirts by watching people"),
    plain("nature:1", "nature", "After the volcano erupted, ash covered the whole island"),
    plain("nature:2", "nature", "Heavy rain made the river flood the old town"),
    plain("nature:3", "nature", "In autumn the leaves of the maple turn red and gold"),
    plain("nature:4", "nature", "The telescope took a picture of a galaxy far away"),
    plain("sport:1", "sport", "The goalkeeper stopped a penalty in the last minute"),
    plain("sport:2", "sport", "She won the marathon in two hours and twenty minutes"),
    plain("sport:3", "sport", "The chess champion resigned after forty moves"),
    plain("sport:4", "sport", "Children learn to swim in the lake every summer"),
    plain("music:1", "music", "The orchestra tuned its violins before the concert"),
    plain("music:2", "music", "He plays the same song on the piano every evening"),
    plain("music:3", "music", "The band sold out the stadium in an hour"),
    plain("law:1", "law", "The court found the thief guilty and sent him to prison"),
    plain("law:2", "law", "Both companies signed the contract on Monday"),
    plain("law:3", "law", "Citizens over eighteen may vote in the election"),
];

impl Sentence {
    /// The sentence of that name.
    pub fn named(id: &str) -> Option<&'static Self> {
        SENTENCES.iter().find(|sentence| sentence.id == id)
    }

    /// Its attributes, as JSON.
    pub fn attributes(&self) -> String {
        match self.wage {
            Some(wage) => format!(r#"{{"topic":"{}","wage":{wage}}}"#, self.topic),
            None => format!(r#"{{"topic":"{}"}}"#, self.topic),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_different_and_begin_what_they_are() {
        for (at, sentence) in SENTENCES.iter().enumerate() {
            assert!(std::ptr::eq(Sentence::named(sentence.id).unwrap(), &SENTENCES[at]), "{}", sentence.id);
            assert_eq!(sentence.wage.is_some(), sentence.topic == "jobs", "{}", sentence.id);
        }
        assert_eq!(SENTENCES[0].attributes(), r#"{"topic":"jobs","wage":15}"#);
    }
}
