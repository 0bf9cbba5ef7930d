//! `calculator`: arithmetic. Expressions are `exmex`'s, which is well kept and allows no more than
//! arithmetic.

use async_trait::async_trait;
use exmex::{Express, FlatEx};
use serde_json::{Map, Value, json};

use super::{Answer, Function, Hosted, Parts, ToolUser, object};

const MAX_EXPRESSION: usize = 1000;

pub struct Calculator;

fn pair(name: &'static str, description: &'static str) -> Function {
    let number = json!({ "type": "number" });
    Function {
        name,
        description,
        parameters: object(json!({ "a": number, "b": number }), &["a", "b"]),
    }
}

#[async_trait]
impl Hosted for Calculator {
    fn name(&self) -> &'static str {
        "calculator"
    }

    fn description(&self) -> &'static str {
        "Arithmetic: add, subtract, multiply, divide, power, sqrt, modulo, factorial, percentage, \
         and whole expressions."
    }

    fn functions(&self) -> Vec<Function> {
        let number = json!({ "type": "number" });
        vec![
            pair("add", "a + b"),
            pair("subtract", "a - b"),
            pair("multiply", "a * b"),
            pair("divide", "a / b"),
            pair("power", "a to the power of b"),
            pair("modulo", "The remainder of a / b, with the sign of a"),
            pair("percentage", "a percent of b"),
            Function {
                name: "sqrt",
                description: "The square root of a",
                parameters: object(json!({ "a": number }), &["a"]),
            },
            Function {
                name: "factorial",
                description: "n!, for n from 0 to 170",
                parameters: object(
                    json!({ "n": { "type": "integer", "minimum": 0, "maximum": 170 } }),
                    &["n"],
                ),
            },
            Function {
                name: "evaluate",
                description: "The value of an expression, such as \"(1 + 2) * sin(PI / 2) ^ 3\"",
                parameters: object(
                    json!({ "expression": { "type": "string", "maxLength": MAX_EXPRESSION } }),
                    &["expression"],
                ),
            },
        ]
    }

    async fn call(
        &self,
        function: &str,
        args: &Map<String, Value>,
        _caller: &ToolUser,
        _parts: &Parts,
    ) -> Result<Answer, String> {
        Ok(shown(calculate(function, args)?)?.into())
    }
}

fn calculate(function: &str, args: &Map<String, Value>) -> Result<f64, String> {
    let number = |name: &str| {
        let found = args.get(name).and_then(Value::as_f64);
        found.ok_or_else(|| format!("'{name}' must be a number"))
    };
    Ok(match function {
        "add" => number("a")? + number("b")?,
        "subtract" => number("a")? - number("b")?,
        "multiply" => number("a")? * number("b")?,
        "divide" | "modulo" if number("b")? == 0.0 => return Err("division by zero".to_owned()),
        "divide" => number("a")? / number("b")?,
        "modulo" => number("a")? % number("b")?,
        "power" => number("a")?.powf(number("b")?),
        "percentage" => number("a")? * number("b")? / 100.0,
        "sqrt" if number("a")? < 0.0 => {
            return Err("a negative number has no real square root".to_owned());
        }
        "sqrt" => number("a")?.sqrt(),
        "factorial" => {
            let n = args.get("n").and_then(Value::as_u64);
            let n = n.filter(|n| *n <= 170);
            let n = n.ok_or("'n' must be a whole number from 0 to 170")?;
            (1..=n).map(|n| n as f64).product()
        }
        "evaluate" => {
            let expression = super::text(args, "expression")?;
            if expression.len() > MAX_EXPRESSION {
                return Err("the expression is too long".to_owned());
            }
            let parsed = FlatEx::<f64>::parse(expression).map_err(|e| e.to_string())?;
            if let Some(name) = parsed.var_names().first() {
                return Err(format!("'{name}' is unknown"));
            }
            parsed.eval(&[]).map_err(|e| e.to_string())?
        }
        other => return Err(format!("no function '{other}'")),
    })
}

/// Whole numbers without a point, and no digits that binary arithmetic made up.
fn shown(value: f64) -> Result<String, String> {
    if !value.is_finite() {
        return Err("the result is too large, or no number".to_owned());
    }
    if value.fract() == 0.0 && value.abs() < 1e15 {
        return Ok(format!("{value:.0}"));
    }
    let rounded: f64 = format!("{value:.14e}").parse().unwrap_or(value);
    Ok(rounded.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(function: &str, args: Value) -> Result<String, String> {
        let args = args.as_object().cloned().unwrap_or_default();
        calculate(function, &args).and_then(shown)
    }

    #[test]
    fn every_function_calculates() {
        for (function, args, result) in [
            ("add", json!({ "a": 0.1, "b": 0.2 }), "0.3"),
            ("subtract", json!({ "a": 1, "b": 3 }), "-2"),
            ("multiply", json!({ "a": 6, "b": 7 }), "42"),
            ("divide", json!({ "a": 1, "b": 4 }), "0.25"),
            ("power", json!({ "a": 2, "b": 10 }), "1024"),
            ("modulo", json!({ "a": 7, "b": 3 }), "1"),
            ("percentage", json!({ "a": 15, "b": 80 }), "12"),
            ("sqrt", json!({ "a": 2 }), "1.4142135623731"),
            ("factorial", json!({ "n": 5 }), "120"),
            (
                "evaluate",
                json!({ "expression": "(1 + 2) * 3 ^ 2 - 1" }),
                "26",
            ),
        ] {
            assert_eq!(run(function, args).as_deref(), Ok(result), "{function}");
        }
    }

    #[test]
    fn what_cannot_be_calculated_is_told() {
        for (function, args) in [
            ("divide", json!({ "a": 1, "b": 0 })),
            ("sqrt", json!({ "a": -1 })),
            ("factorial", json!({ "n": 171 })),
            ("power", json!({ "a": 10, "b": 400 })),
            ("evaluate", json!({ "expression": "x + 1" })),
            ("evaluate", json!({ "expression": "1 +" })),
            ("add", json!({ "a": "1" })),
        ] {
            assert!(run(function, args).is_err(), "{function}");
        }
    }
}
