//! The parameters of a call by their names, to tell which of them a target has a place for.

use super::request::ModelRequest;

/// A parameter that a call may ask for and a target may have no place for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Param {
    Temperature,
    TopP,
    TopK,
    MaxTokens,
    Stop,
    Seed,
    PresencePenalty,
    FrequencyPenalty,
    Effort,
    User,
    Verbosity,
    ServiceTier,
    PromptCacheKey,
    Metadata,
    LogitBias,
    ParallelToolCalls,
}

impl Param {
    pub const ALL: [Self; 16] = [
        Self::Temperature,
        Self::TopP,
        Self::TopK,
        Self::MaxTokens,
        Self::Stop,
        Self::Seed,
        Self::PresencePenalty,
        Self::FrequencyPenalty,
        Self::Effort,
        Self::User,
        Self::Verbosity,
        Self::ServiceTier,
        Self::PromptCacheKey,
        Self::Metadata,
        Self::LogitBias,
        Self::ParallelToolCalls,
    ];

    /// Its name, as Chat Completions has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Temperature => "temperature",
            Self::TopP => "top_p",
            Self::TopK => "top_k",
            Self::MaxTokens => "max_completion_tokens",
            Self::Stop => "stop",
            Self::Seed => "seed",
            Self::PresencePenalty => "presence_penalty",
            Self::FrequencyPenalty => "frequency_penalty",
            Self::Effort => "reasoning_effort",
            Self::User => "user",
            Self::Verbosity => "verbosity",
            Self::ServiceTier => "service_tier",
            Self::PromptCacheKey => "prompt_cache_key",
            Self::Metadata => "metadata",
            Self::LogitBias => "logit_bias",
            Self::ParallelToolCalls => "parallel_tool_calls",
        }
    }

    /// Whether `request` asks for something other than what happens without it.
    pub fn is_asked(self, request: &ModelRequest) -> bool {
        let params = &request.params;
        match self {
            Self::Temperature => params.temperature.is_some(),
            Self::TopP => params.top_p.is_some(),
            Self::TopK => params.top_k.is_some(),
            Self::MaxTokens => params.max_tokens.is_some(),
            Self::Stop => !params.stop.is_empty(),
            Self::Seed => params.seed.is_some(),
            Self::PresencePenalty => params.presence_penalty.is_some_and(|by| by != 0.0),
            Self::FrequencyPenalty => params.frequency_penalty.is_some_and(|by| by != 0.0),
            Self::Effort => params
                .effort
                .is_some_and(|effort| effort.budget_tokens() > 0),
            Self::User => params.user.is_some(),
            Self::Verbosity => params.verbosity.is_some(),
            Self::ServiceTier => params.service_tier.as_deref().is_some_and(|t| t != "auto"),
            Self::PromptCacheKey => params.prompt_cache_key.is_some(),
            Self::Metadata => params.metadata.is_some(),
            Self::LogitBias => params
                .logit_bias
                .as_ref()
                .is_some_and(|all| !all.is_empty()),
            Self::ParallelToolCalls => {
                request.parallel_tool_calls == Some(false) && !request.tools.is_empty()
            }
        }
    }
}

/// What a call asks for that its target has no place for, or does not take; a set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lost(u16);

impl Lost {
    /// Of `asked`, what `is_carried` does not find in what is sent.
    pub fn of(asked: &ModelRequest, is_carried: impl Fn(Param) -> bool) -> Self {
        let lost = Param::ALL.iter().enumerate().filter(|(_, param)| {
            // Mostly nothing is asked for.
            param.is_asked(asked) && !is_carried(**param)
        });
        Self(lost.fold(0, |set, (at, _)| set | 1 << at))
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The parameters, in their order.
    pub fn params(self) -> impl Iterator<Item = Param> {
        let all = Param::ALL.into_iter().enumerate();
        all.filter_map(move |(at, param)| (self.0 & 1 << at != 0).then_some(param))
    }

    /// Their names, for people.
    pub fn names(self) -> String {
        let names: Vec<&str> = self.params().map(Param::name).collect();
        names.join(", ")
    }
}
